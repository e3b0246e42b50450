// From the small files of a model's folder to its tokenizer.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "engine/tokenizer/text_files.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

// tokenizer.json goes before a tiktoken file, and that before SentencePiece's tokenizer.model; null
// when the folder has none. `where` names the folder in messages. What cannot be read is a kData
// error that names the file.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const TextFiles& files, std::string_view where);

}  // namespace airllm::tokenizer

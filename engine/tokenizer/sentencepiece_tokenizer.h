// The tokenizer of a folder with SentencePiece's tokenizer.model. No I/O.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "engine/tokenizer/text_files.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

// `files` holds a tokenizer_model. A user's text becomes the ids that the `sentencepiece` library
// gives, without those that stand for control (docs/tokenizers.md). `where` names the folder in
// messages. What cannot be read is a kData error.
Result<std::unique_ptr<Tokenizer>> load_sentencepiece(const TextFiles& files,
                                                      std::string_view where);

}  // namespace airllm::tokenizer

// Files of OpenAI's tiktoken, as Qwen-1 ships one: a token's bytes in base64 and its rank per line.
// What such a file leaves open (the pattern that cuts words, special tokens, normalisation) is
// known here by the name of the model's tokenizer class.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "engine/tokenizer/text_files.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

// The tokens in the alphabet of byte-level BPE (byte_level.h), with their ranks as ids. Ranks are
// 0, 1, 2, … in any order, and each byte alone is a token; all else is a kData error that names the
// line. `what` names the file.
Result<Vocabulary> read_tiktoken_file(std::string_view text, std::string_view what);

// Whether the bytes of a file named otherwise (tokenizer.model) begin as a tiktoken file does.
bool looks_like_tiktoken(std::string_view text);

// From files.tiktoken, which is there, and the class that tokenizer_config.json names: Qwen-1's, as
// its tokenization_qwen.py. Another class is a kData error that names it. `where` names the folder.
Result<std::unique_ptr<Tokenizer>> load_tiktoken(const TextFiles& files, std::string_view where);

}  // namespace airllm::tokenizer

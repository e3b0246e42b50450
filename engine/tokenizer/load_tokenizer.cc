#include "engine/tokenizer/load_tokenizer.h"

#include <string>

#include "engine/tokenizer/sentencepiece_tokenizer.h"

namespace airllm::tokenizer {

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const TextFiles& files, std::string_view where) {
  const std::string folder(where);
  if (files.tokenizer_json) {
    return Tokenizer::from_json(*files.tokenizer_json, folder + "/tokenizer.json");
  }
  if (files.tokenizer_model) return load_sentencepiece(files, where);
  if (files.tiktoken) {
    return Unexpected(ErrorCode::kData,
                      folder + ": tiktoken files are not supported without a tokenizer.json",
                      "convert the tokenizer to tokenizer.json; prompts can be given as ids");
  }
  return std::unique_ptr<Tokenizer>();
}

}  // namespace airllm::tokenizer

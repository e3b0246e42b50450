#include "engine/tokenizer/load_tokenizer.h"

#include <string>

#include "engine/tokenizer/sentencepiece_tokenizer.h"
#include "engine/tokenizer/tiktoken.h"

namespace airllm::tokenizer {

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const TextFiles& files, std::string_view where) {
  const std::string folder(where);
  if (files.tokenizer_json) {
    return Tokenizer::from_json(*files.tokenizer_json, folder + "/tokenizer.json");
  }
  if (files.tiktoken) return load_tiktoken(files, where);
  if (!files.tokenizer_model) return std::unique_ptr<Tokenizer>();
  if (looks_like_tiktoken(*files.tokenizer_model)) {
    return Unexpected(ErrorCode::kData,
                      folder +
                          "/tokenizer.model: a tiktoken file, which does not say how text is "
                          "cut nor which special tokens there are",
                      "take the model's folder with tokenizer.json; prompts can be given as ids");
  }
  return load_sentencepiece(files, where);
}

}  // namespace airllm::tokenizer

// The small files of a model's folder that say how text becomes tokens, as they came.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace airllm::tokenizer {

// What is absent was not in the folder.
struct TextFiles {
  std::optional<std::string> tokenizer_json = std::nullopt;
  std::optional<std::string> tokenizer_model = std::nullopt;  // the bytes of a SentencePiece file
  std::optional<std::string> tiktoken = std::nullopt;         // of a *.tiktoken file
  std::optional<std::string> tokenizer_config_json = std::nullopt;
  std::optional<std::string> special_tokens_map_json = std::nullopt;
  std::optional<std::string> added_tokens_json = std::nullopt;
  std::optional<std::string> chat_template_jinja = std::nullopt;
  std::optional<std::string> config_json = std::nullopt;
  std::optional<std::string> generation_config_json = std::nullopt;
  // additional_chat_templates/*.jinja: the file's stem, and its source.
  std::vector<std::pair<std::string, std::string>> additional_chat_templates = {};
};

}  // namespace airllm::tokenizer

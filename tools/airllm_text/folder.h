// The files of a model's folder that say how its text becomes ids and prompts.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace airllm::tools {

struct TextFiles {
  std::optional<std::string> tokenizer_json, tokenizer_model, tiktoken, tokenizer_config_json,
      special_tokens_map_json, chat_template_jinja, config_json, generation_config_json;
  std::vector<std::pair<std::string, std::string>> additional_chat_templates;
};

// A missing file is left out; a folder that is not there, a file that cannot be read and a second
// *.tiktoken file are errors.
Result<TextFiles> read_text_files(const std::filesystem::path& folder);

}  // namespace airllm::tools

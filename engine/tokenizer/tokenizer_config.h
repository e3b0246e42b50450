// What tokenizer_config.json and special_tokens_map.json say for chat templates: the templates
// themselves, and the special tokens' texts under the names that templates use.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/tokenizer/text_files.h"

namespace airllm::tokenizer {

struct NamedTemplate {
  std::string name;
  std::string source;
  std::string what;  // where it came from, for messages
};

// A model's templates. `single`: one template without a choice, which then is named "default".
struct TemplateSources {
  bool single = false;
  std::vector<NamedTemplate> templates;
};

// The special tokens that every tokenizer of transformers has names for.
inline constexpr std::array<std::string_view, 7> kStandardTokens = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
bool is_standard_token(std::string_view key);

struct TokenizerConfig {
  TemplateSources chat_templates;
  // kStandardTokens; a model's own names (any other "…_token", and the entries of an
  // "extra_special_tokens" object). Strings; a token that is not set is not there.
  Json special_tokens = Json::object();
  std::string tokenizer_class;  // empty when the file does not say
  std::string auto_class;       // "auto_map"'s, of the model's own Python; or empty
};

// As transformers' from_pretrained():
// - chat_template.jinja ("default") and the additional templates go before the setting; when they
//   are there, the setting's templates are not looked at.
// - special_tokens_map.json overrides tokenizer_config.json, but counts only when the latter has no
//   "added_tokens_decoder".
// - Where tokenizer_config.json does not name a token, the tokenizer's class does, for classes of
//   language models (LlamaTokenizer, …).
// `where` is the folder's name for messages.
Result<TokenizerConfig> read_tokenizer_config(const TextFiles& files, std::string_view where);

}  // namespace airllm::tokenizer

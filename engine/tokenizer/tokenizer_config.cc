#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/fields.h"

namespace airllm::tokenizer {
namespace {

// The text of a special token: a string, or an object that describes an added token.
Result<std::optional<std::string>> token_text(const Fields& fields, const char* key) {
  using Text = std::optional<std::string>;
  const Json* value = fields.find(key);
  if (value == nullptr) return Text();
  if (value->is_string()) return Text(value->get<std::string>());
  if (!value->is_object()) return fields.wrong(key, "a string or an object with \"content\"");
  AIRLLM_TRY(std::string content, Fields(*value, fields.where() + ": " + key).string("content"));
  return Text(std::move(content));
}

// The template itself, or of a list of {"name", "template"} the one named "default".
Result<std::optional<std::string>> template_text(const Fields& fields) {
  using Text = std::optional<std::string>;
  const Json* value = fields.find("chat_template");
  if (value == nullptr) return Text();
  if (value->is_string()) return Text(value->get<std::string>());
  if (!value->is_array()) return fields.wrong("chat_template", "a string or a list");
  for (const Json& element : *value) {
    const Fields entry(element, fields.where() + ": chat_template");
    AIRLLM_TRY(const std::string name, entry.string("name"));
    AIRLLM_TRY(std::string text, entry.string("template"));
    if (name == "default") return Text(std::move(text));
  }
  return Text();
}

}  // namespace

Result<TokenizerConfig> parse_tokenizer_config(std::string_view json, std::string_view what) {
  AIRLLM_TRY(const Json object, parse_json(json, what));
  if (!object.is_object()) {
    return Unexpected(ErrorCode::kData, std::string(what) + ": not a JSON object");
  }
  const Fields fields(object, std::string(what));
  TokenizerConfig config;
  AIRLLM_TRY(config.chat_template, template_text(fields));
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    AIRLLM_TRY(const std::optional<std::string> text, token_text(fields, key));
    if (text.has_value()) config.special_tokens[key] = *text;
  }
  return config;
}

}  // namespace airllm::tokenizer

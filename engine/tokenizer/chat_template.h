// Chat templates: from messages to the prompt text that a model was trained with.
//
// The language is Jinja as transformers runs it. Behind this interface stands an interpreter of the
// part that the bundled model needs; a full one will take its place.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

// What a template is rendered with, as transformers' apply_chat_template takes it.
struct TemplateInput {
  Json messages =
      Json::array();         // objects with "role", "content" and whatever else the model knows
  Json tools = nullptr;      // a list; null: none
  Json documents = nullptr;  // likewise
  bool add_generation_prompt = false;
  Json variables = Json::object();  // further names, such as enable_thinking
};

// One message of plain text, the usual case.
Json text_message(std::string_view role, std::string_view content);

// Immutable; safe to share between threads.
class ChatTemplate {
 public:
  // `special_tokens` are the names that the model's files give (bos_token, eos_token, …), as
  // strings. What the interpreter does not know is a kData error that names it with its line.
  static Result<std::unique_ptr<ChatTemplate>> parse(std::string_view source,
                                                     const Json& special_tokens,
                                                     std::string_view what);
  virtual ~ChatTemplate() = default;

  // Text that stems from `input` is marked from_user. raise_exception in the template is a kUsage
  // error with its text.
  virtual Result<std::vector<TextPart>> render(const TemplateInput& input) const = 0;
};

// From tokenizer_config.json: its "chat_template" (a string, or the "default" of a named list) and
// the special tokens' texts (bos_token, eos_token, unk_token, pad_token; strings or objects with
// "content").
struct TokenizerConfig {
  std::optional<std::string> chat_template;
  Json special_tokens = Json::object();
};
Result<TokenizerConfig> parse_tokenizer_config(std::string_view json, std::string_view what);

}  // namespace airllm::tokenizer

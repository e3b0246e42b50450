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

struct TemplateMessage {
  std::string role;
  std::string content;
};

// Immutable; safe to share between threads.
class ChatTemplate {
 public:
  // What the interpreter does not know is a kData error that names it with its line.
  static Result<std::unique_ptr<ChatTemplate>> parse(std::string_view source,
                                                     std::string_view what);
  virtual ~ChatTemplate() = default;

  // Text that stems from a message's content is marked from_user. `variables` are further names
  // that the template sees: bos_token, eos_token, … as strings. raise_exception in the template is
  // a kUsage error with its text.
  virtual Result<std::vector<TextPart>> render(const std::vector<TemplateMessage>& messages,
                                               bool add_generation_prompt,
                                               const Json& variables) const = 0;
};

// From tokenizer_config.json: its "chat_template" (a string, or the "default" of a named list) and
// the special tokens' texts (bos_token, eos_token, unk_token, pad_token; strings or objects with
// "content") as variables.
struct TokenizerConfig {
  std::optional<std::string> chat_template;
  Json variables = Json::object();
};
Result<TokenizerConfig> parse_tokenizer_config(std::string_view json, std::string_view what);

}  // namespace airllm::tokenizer

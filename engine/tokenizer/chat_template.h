// Chat templates: from messages to the prompt text that a model was trained with, as transformers'
// apply_chat_template(tokenize=False) writes it.
//
// Who wrote what. Of a rendered text, these are the user's (TextPart::from_user), so that no added
// token is found in them: every string in messages, tools, documents and variables, also after it
// went through filters and methods, where it names a tool or a parameter, and where it is the name
// of an object's member. These are not:
// the template's own text, the special tokens, and the "role" of a message where it is a plain word
// of [a-z_-] (templates make control tokens of it: '<|' + role + '|>').
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/tokenizer/text_files.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

struct TemplateInput;

// A model's templates: one, or several by name. Immutable; safe to share between threads.
class ChatTemplate {
 public:
  // One template. `special_tokens` are the names that the model's files give (bos_token, eos_token,
  // …), as strings. What the interpreter does not know is a kData error that names it with its
  // line.
  static Result<std::unique_ptr<ChatTemplate>> parse(std::string_view source,
                                                     const Json& special_tokens,
                                                     std::string_view what);
  virtual ~ChatTemplate() = default;

  // Of several templates the one that the input names, else "tool_use" when there are tools, else
  // "default"; when there is none of these, the kUsage error names those that there are.
  // raise_exception in the template is a kUsage error with its text.
  virtual Result<std::vector<TextPart>> render(const TemplateInput& input) const = 0;

  // "default" alone for a single one.
  virtual std::vector<std::string> names() const = 0;
};

// The model's own templates (see read_tokenizer_config), else the one of its family (see
// find_builtin_template), else null. `where` is the folder's name, for messages and for the family.
// A single template that does not parse is an error; of several, each is one when it is chosen.
Result<std::unique_ptr<ChatTemplate>> load_chat_template(const TextFiles& files,
                                                         std::string_view where);

}  // namespace airllm::tokenizer

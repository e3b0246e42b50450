// Jinja source to tokens, with white space handled as transformers configures Jinja: trim_blocks
// and lstrip_blocks are on, the last newline of the source is dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::jinja {

enum class TokenKind {
  kText,         // outside tags, white space already cut
  kOutputBegin,  // {{
  kOutputEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // text: the value, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

// The last token is kEnd. `what` names the template in messages.
Result<std::vector<Token>> tokenize(std::string_view source, std::string_view what);

// "<what>: line N: <problem>", the form of all errors about templates.
Unexpected template_error(std::string_view what, int line, std::string_view problem);

}  // namespace airllm::jinja

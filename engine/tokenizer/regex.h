// Patterns of tokenizer.json: a literal, or a regular expression as Oniguruma, the engine that
// Hugging Face tokenizers use, understands it. Most expressions run in engine/regex with the
// classes of Unicode 16, as in the reference; the rest in the system's Oniguruma, whose Unicode may
// be older (14 in Debian 12).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/regex/program.h"

struct re_pattern_buffer;

namespace airllm::tokenizer {

// Bytes [begin, end) of a text below 4 GiB. Narrow, since a long text has as many as characters.
struct Range {
  uint32_t begin;
  uint32_t end;
};

// Immutable; safe to share between threads.
class Pattern {
 public:
  // `where` names the component in messages. A wrong expression is a kData error.
  static Result<Pattern> regex(std::string_view expression, const std::string& where);
  static Result<Pattern> literal(std::string_view text, const std::string& where);
  // {"String": "..."} or {"Regex": "..."}.
  static Result<Pattern> from_json(const Json& json, const std::string& where);

  // All matches from left to right without overlap. An empty match directly behind another match
  // is left out. A text of 4 GiB, or one that needs too many steps, is a kData error.
  Result<std::vector<Range>> find_all(std::string_view text) const;
  // Whether it runs in engine/regex, or is a literal.
  bool is_own() const { return regex_ == nullptr; }
  // Empty when it is an expression.
  const std::string& literal_text() const { return literal_; }

 private:
  struct Deleter {
    void operator()(re_pattern_buffer* regex) const;
  };
  Pattern() = default;
  template <typename Search>
  Status collect(std::string_view text, Search search, std::vector<Range>& matches) const;
  Status find_program(std::string_view text, std::vector<Range>& matches) const;
  Status find_oniguruma(std::string_view text, std::vector<Range>& matches) const;

  std::string literal_;  // empty: program_ or regex_ is set
  std::shared_ptr<const regex::Program> program_;
  std::unique_ptr<re_pattern_buffer, Deleter> regex_;
  std::string where_;
};

}  // namespace airllm::tokenizer

// Runs a Program over a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/regex/program.h"

namespace airllm::regex {

struct Match {
  size_t begin, end;
};

// The state of one search; not for several threads. Borrows the program and the text.
class Matcher {
 public:
  // Valid UTF-8 below 4 GiB.
  Matcher(const Program& program, std::string_view text);

  // The leftmost match that begins at `from` (the first byte of a character, or the end) or
  // later. Nothing when there is none, or when out_of_steps().
  std::optional<Match> find(size_t from);
  // Whether the searches took more steps than the length of the text justifies.
  bool out_of_steps() const { return steps_ > step_limit_; }

 private:
  static constexpr uint32_t kFail = UINT32_MAX;
  // What to try when the way taken fails.
  struct Frame {
    uint32_t code;      // of the span or the choice
    uint32_t position;  // of a span: the end to shorten; else where to go on
    uint32_t low;       // of a span: the shortest end; of a choice: the next branch
  };

  uint32_t run(uint32_t code, uint32_t position);  // the end of the match, or kFail
  bool step(uint32_t& code, uint32_t& position);   // one instruction but kAccept; false: failed
  bool span(const Instruction& in, uint32_t& code, uint32_t& position);
  bool lazy_span(const Instruction& in, uint32_t& code, uint32_t& position);
  bool choose(const Choice& choice, uint32_t branch, uint32_t& code, uint32_t& position);
  bool look(const Instruction& in, uint32_t& code, uint32_t position);
  bool backtrack(uint32_t& code, uint32_t& position, size_t base);
  bool holds(Assertion assertion, uint32_t position) const;
  bool is_word_at(uint32_t position) const;
  bool matches_one(const text::CodePointSet& set, uint32_t& position) const;
  bool starts_with(uint32_t set, uint32_t position) const;

  const Program& program_;
  std::string_view text_;
  uint32_t size_;
  std::vector<Frame> frames_;
  uint64_t steps_ = 0;
  uint64_t step_limit_;
};

}  // namespace airllm::regex

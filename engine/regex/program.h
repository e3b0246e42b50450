// A regular expression compiled for a backtracking matcher with the leftmost-first rules of
// Oniguruma. Sets of first characters choose among alternatives, and repeats give nothing back
// where what follows could not start inside them, so that most texts need no backtracking.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/regex/parser.h"
#include "engine/text/code_point_set.h"

namespace airllm::regex {

inline constexpr uint32_t kNoSet = UINT32_MAX;

struct Instruction {
  enum class Op : uint8_t {
    kSet,             // one character of `set`
    kSpan,            // min to max characters of `set`, as many as possible
    kPossessiveSpan,  // gives none back
    kLazySpan,        // as few as possible
    kChoose,          // choices[target]
    kJump,            // to target
    kLook,            // the code behind up to kAccept holds here, or not; goes on at target
    kLookbehind,      // the same, `min` characters before
    kAtomic,          // the code behind up to kAccept matches in one way; goes on at target
    kAssert,
    kAccept,
  };
  Op op;
  bool negated = false;
  Assertion assertion = Assertion::kTextBegin;
  uint32_t set = kNoSet;
  uint32_t min = 0, max = 0;
  uint32_t next_set = kNoSet;  // of a span: where its continuation can start
  uint32_t target = 0;
};

struct Choice {
  struct Branch {
    uint32_t set;  // of first characters; kNoSet: anything or nothing
    uint32_t target;
  };
  std::vector<Branch> branches;          // at most 32
  std::array<uint32_t, 128> by_ascii{};  // bit i: branch i can start with the character
};

struct Program {
  std::vector<Instruction> code;  // starts at 0
  std::vector<Choice> choices;
  std::vector<text::CodePointSet> sets;
  uint32_t first_set = kNoSet;  // where a match can start
  uint32_t word_set = kNoSet;   // \w, when an assertion needs it
};

// Nothing for what parse() does not take or what becomes too large.
std::optional<Program> compile(std::string_view expression);

}  // namespace airllm::regex

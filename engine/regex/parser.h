// Regular expressions in the syntax of Oniguruma, as trees. What the subset lacks (back
// references, \X, absent operators, case folding of classes beyond ASCII, ...) gives no tree: the
// caller has another engine for it, which also says what is wrong with a wrong expression.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/text/code_point_set.h"

namespace airllm::regex {

enum class Assertion : uint8_t {
  kLineBegin,
  kLineEnd,
  kTextBegin,
  kTextEnd,
  kTextEndOrNewline,
  kWordBoundary,
  kNoWordBoundary,
};

enum class Greed : uint8_t { kGreedy, kLazy, kPossessive };

inline constexpr uint32_t kUnbounded = UINT32_MAX;

struct Node {
  enum class Kind : uint8_t {
    kSequence,     // of children; empty: matches nothing
    kAlternation,  // of children, the first that leads to a match
    kSet,
    kRepeat,  // of the one child
    kAtomic,
    kLookahead,
    kLookbehind,  // its child has the fixed length min
    kAssertion,
  };
  Kind kind = Kind::kSequence;
  std::vector<Node> children;
  text::CodePointRanges set;
  uint32_t min = 0, max = 0;
  Greed greed = Greed::kGreedy;
  bool negated = false;
  Assertion assertion = Assertion::kTextBegin;
};

// Valid UTF-8 only. Depth and repeats are limited.
std::optional<Node> parse(std::string_view expression);

// Whether the node can match the empty string.
bool is_nullable(const Node& node);

}  // namespace airllm::regex

// Where a word of byte pair encoding falls apart: between two characters that no merge brings
// together, whatever stands around them. What such gaps separate is encoded on its own, which gives
// the same tokens as the whole, since every merge joins a last character and a first one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace airllm::tokenizer {

// A set of pairs of characters in a few bits each: a pair that was not given may count as joined,
// never the other way round. Immutable after construction; safe to share between threads.
class MergeGaps {
 public:
  using Pair = std::pair<char32_t, char32_t>;

  MergeGaps() = default;
  // `joined`: for each merge the last character of its left token and the first of its right one.
  explicit MergeGaps(std::vector<Pair> joined);

  // Whether a merge may bring the two together.
  bool joins(char32_t left, char32_t right) const {
    const size_t bit = bit_of(left, right);
    return (bits_[bit / 64] >> (bit % 64) & 1U) != 0;
  }

 private:
  size_t bit_of(char32_t left, char32_t right) const {
    const uint64_t pair = uint64_t{left} << 21U | right;  // a code point has 21 bits
    return static_cast<size_t>((pair * 0x9E3779B97F4A7C15U) >> shift_);
  }

  std::vector<uint64_t> bits_ = std::vector<uint64_t>(1);  // 2^(64 - shift_) bits
  unsigned shift_ = 58;
};

}  // namespace airllm::tokenizer

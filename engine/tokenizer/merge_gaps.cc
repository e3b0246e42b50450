#include "engine/tokenizer/merge_gaps.h"

#include <algorithm>
#include <bit>

namespace airllm::tokenizer {
namespace {
// One in sixteen pairs that never merge is taken for one that does.
constexpr size_t kBitsPerPair = 16;
constexpr size_t kFewestBits = 64;
}  // namespace

MergeGaps::MergeGaps(std::vector<Pair> joined) {
  std::sort(joined.begin(), joined.end());
  joined.erase(std::unique(joined.begin(), joined.end()), joined.end());
  const size_t bits = std::bit_ceil(std::max(kBitsPerPair * joined.size(), kFewestBits));
  shift_ = static_cast<unsigned>(std::countl_zero(bits)) + 1;
  bits_.assign(bits / 64, 0);
  for (const auto& [left, right] : joined) {
    const size_t bit = bit_of(left, right);
    bits_[bit / 64] |= uint64_t{1} << (bit % 64);
  }
}

}  // namespace airllm::tokenizer

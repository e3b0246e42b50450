#include "engine/store/nonfinite.h"

#include <cstdint>
#include <cstring>

namespace airllm::store {
namespace {

// Of the numbers that a word holds: their exponents, and each one's lowest bit. A number is not
// finite when all bits of its exponent are set; then adding the lowest carries into the sign's bit,
// and never further.
struct Exponents {
  uint64_t all;
  uint64_t lowest;
};

constexpr Exponents exponents_of(kernels::NumberFormat format) {
  switch (format) {
    case kernels::NumberFormat::kF16: return {0x7c007c007c007c00, 0x0400040004000400};
    case kernels::NumberFormat::kBF16: return {0x7f807f807f807f80, 0x0080008000800080};
    default: return {0x7f8000007f800000, 0x0080000000800000};
  }
}

}  // namespace

bool has_nonfinite(kernels::NumberFormat format, std::span<const std::byte> numbers) {
  const Exponents exponents = exponents_of(format);
  uint64_t signs = 0;
  size_t at = 0;
  uint64_t word = 0;
  for (; at + sizeof(word) <= numbers.size(); at += sizeof(word)) {
    std::memcpy(&word, numbers.data() + at, sizeof(word));
    signs |= (word & exponents.all) + exponents.lowest;
  }
  if (at < numbers.size()) {
    word = 0;
    std::memcpy(&word, numbers.data() + at, numbers.size() - at);
    signs |= (word & exponents.all) + exponents.lowest;
  }
  // The bit above an exponent: twice its highest.
  return (signs & ((exponents.all << 1) & ~exponents.all)) != 0;
}

}  // namespace airllm::store

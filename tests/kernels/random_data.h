// Fresh random data for the tests of kernels, and the formulas' own view of stored numbers. Nothing
// here shares code with the kernels.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace airllm::kernels::testing {

// Half of an f32's unit in the last place, relative: what one rounding may cost.
inline constexpr double kRounding = 0x1p-24;

inline constexpr NumberFormat kFormats[] = {NumberFormat::kF32, NumberFormat::kF16,
                                            NumberFormat::kBF16};

inline double f16_value(uint16_t half) {
  const int exponent = half >> 10 & 31, mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}
inline double bf16_value(uint16_t half) {
  const int exponent = half >> 7 & 255, mantissa = half & 127;
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == 255) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, -133);
  return sign * std::ldexp(128 + mantissa, exponent - 134);
}

// Numbers of one format, beginning at an address that is a multiple of the element's size and of
// nothing more.
class StoredNumbers {
 public:
  StoredNumbers(NumberFormat format, size_t count)
      : format_(format), bytes_((count + 1) * bytes_per_element(format)) {}

  NumberFormat format() const { return format_; }
  size_t size() const { return bytes_.size() / bytes_per_element(format_) - 1; }
  const void* data() const { return bytes_.data() + bytes_per_element(format_); }
  // Where element `index` lies; the unaligned pointer of a tile that begins there.
  const void* at(size_t index) const {
    return static_cast<const char*>(data()) + index * bytes_per_element(format_);
  }
  void set_bits(size_t index, uint32_t bits) {
    const size_t size = bytes_per_element(format_);
    const auto half = static_cast<uint16_t>(bits);
    std::memcpy(&bytes_[(index + 1) * size], size == 4 ? static_cast<const void*>(&bits) : &half,
                size);
  }
  // The exact value of element `index`.
  double value(size_t index) const {
    if (format_ == NumberFormat::kF32) {
      float value;
      std::memcpy(&value, at(index), sizeof(value));
      return value;
    }
    uint16_t half;
    std::memcpy(&half, at(index), sizeof(half));
    return format_ == NumberFormat::kF16 ? f16_value(half) : bf16_value(half);
  }

 private:
  NumberFormat format_;
  std::vector<char> bytes_;
};

// Seeded from the system; AIRLLM_TEST_SEED repeats a run.
class Random {
 public:
  Random() : Random(choose_seed()) {}
  explicit Random(uint64_t seed) : engine_(seed) {
    std::printf("seed %llu (AIRLLM_TEST_SEED=%llu repeats it)\n",
                static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seed));
  }

  float uniform(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(engine_);
  }
  std::vector<float> floats(size_t count, float low = -1, float high = 1) {
    std::vector<float> numbers(count);
    for (float& number : numbers) number = uniform(low, high);
    return numbers;
  }
  // Numbers of either sign with magnitudes from 2^-7 to 2.
  StoredNumbers stored(NumberFormat format, size_t count) {
    StoredNumbers numbers(format, count);
    for (size_t i = 0; i < count; ++i) {
      const auto sign = static_cast<uint32_t>(engine_() & 1);
      const auto power = static_cast<uint32_t>(engine_() % 8);  // 2^(power - 7)
      const auto mantissa = static_cast<uint32_t>(engine_());
      switch (format) {
        case NumberFormat::kF32:
          numbers.set_bits(i, sign << 31 | (power + 120) << 23 | (mantissa & 0x7fffffu));
          break;
        case NumberFormat::kF16:
          numbers.set_bits(i, sign << 15 | (power + 8) << 10 | (mantissa & 0x3ffu));
          break;
        case NumberFormat::kBF16:
          numbers.set_bits(i, sign << 15 | (power + 120) << 7 | (mantissa & 0x7fu));
          break;
        default: std::abort();  // compressed_test.cc has its own
      }
    }
    return numbers;
  }

 private:
  static uint64_t choose_seed() {
    const char* given = std::getenv("AIRLLM_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }
  std::mt19937_64 engine_;
};

// The backends that this machine can run.
inline std::vector<const Backend*> backends() {
  std::vector<const Backend*> all;
  for (const char* name : kBackendNames) {
    if (const Backend* backend = find_backend(name)) all.push_back(backend);
  }
  return all;
}

// Equal to the bit: a zero is not a negative zero, and a NaN equals itself.
inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
  });
}

}  // namespace airllm::kernels::testing

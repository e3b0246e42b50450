// Numbers of every format as f32, one at a time and without any instruction set's help.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/number_format.h"

namespace airllm::kernels::scalar {

// IEEE 754 binary16. Every value is exact in f32; a NaN stays a NaN.
inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  // The exponents' biases differ by 127 - 15; infinity and NaN keep all ones.
  const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

// bfloat16: the upper half of an f32.
inline float bf16_to_f32(uint16_t half) {
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

// Element `index` of an array of F.
template <NumberFormat F>
inline float load(const void* array, size_t index) {
  const char* at = static_cast<const char*>(array) + index * bytes_per_element(F);
  if constexpr (F == NumberFormat::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  } else {
    uint16_t half;
    std::memcpy(&half, at, sizeof(half));
    return F == NumberFormat::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
  }
}

// The launch boundary: calls body.operator()<F>() with the run-time format as a template parameter.
template <typename Body>
void with_format(NumberFormat format, const Body& body) {
  switch (format) {
    case NumberFormat::kF32: return body.template operator()<NumberFormat::kF32>();
    case NumberFormat::kF16: return body.template operator()<NumberFormat::kF16>();
    case NumberFormat::kBF16: return body.template operator()<NumberFormat::kBF16>();
  }
}

}  // namespace airllm::kernels::scalar

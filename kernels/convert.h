// Numbers of every format as f32 and back, one at a time and without any instruction set's help.
// Not for sources that are compiled for one: the linker may keep their copy for all.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/number_format.h"

namespace airllm::kernels {

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

// The nearest of bfloat16, ties to even; a NaN stays a NaN.
inline uint16_t f32_to_bf16(float number) {
  const auto bits = std::bit_cast<uint32_t>(number);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// The nearest of binary16, ties to even; what is too large becomes infinite, a NaN stays a NaN.
inline uint16_t f32_to_f16(float number) {
  const auto bits = std::bit_cast<uint32_t>(number);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: a subnormal, a multiple of 2^-24
    // The sum's last bit stands for 2^-24, so that adding rounds.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

// FP8 E4M3 as in the OCP's specification (no infinity; all ones are NaN): exact in f32.
inline float f8_e4m3_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t exponent = code >> 3 & 0xfu;
  const uint32_t mantissa = code & 7u;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-9
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  if ((code & 0x7fu) == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  return std::bit_cast<float>(sign | (exponent + 120) << 23 | mantissa << 20);
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

// Makes `number` element `index` of an array of F.
template <NumberFormat F>
inline void store(void* array, size_t index, float number) {
  char* at = static_cast<char*>(array) + index * bytes_per_element(F);
  if constexpr (F == NumberFormat::kF32) {
    std::memcpy(at, &number, sizeof(number));
  } else {
    const uint16_t half = F == NumberFormat::kF16 ? f32_to_f16(number) : f32_to_bf16(number);
    std::memcpy(at, &half, sizeof(half));
  }
}

}  // namespace airllm::kernels

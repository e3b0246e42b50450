// How numbers lie in memory: the formats that weights come in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace airllm::kernels {

enum class NumberFormat : uint8_t { kF32, kF16, kBF16 };

constexpr size_t bytes_per_element(NumberFormat format) {
  return format == NumberFormat::kF32 ? 4 : 2;
}
constexpr const char* number_format_name(NumberFormat format) {
  switch (format) {
    case NumberFormat::kF32: return "f32";
    case NumberFormat::kF16: return "f16";
    case NumberFormat::kBF16: return "bf16";
  }
  return "?";
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

}  // namespace airllm::kernels

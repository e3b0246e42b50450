// How numbers lie in memory: the formats that weights come in. docs/number-formats.md says why they
// are what they are, airllm-shard(5) how they lie in a file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace airllm::kernels {

// All is static, for the reason given in cpu/operations.h.

// The plain formats store every number by itself. The compressed ones store a row of a matrix as
// codes and what they stand for, which blocks of its numbers share: see compressed.h.
enum class NumberFormat : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kNF4, kFP8 };

inline constexpr std::array kAllFormats = {
    NumberFormat::kF32, NumberFormat::kF16, NumberFormat::kBF16, NumberFormat::kQ8,
    NumberFormat::kQ4,  NumberFormat::kNF4, NumberFormat::kFP8};

static constexpr bool is_compressed(NumberFormat format) {
  return format == NumberFormat::kQ8 || format == NumberFormat::kQ4 ||
         format == NumberFormat::kNF4 || format == NumberFormat::kFP8;
}

// Whether products with it take inputs that a backend has prepared, where it prepares any.
static constexpr bool takes_prepared(NumberFormat format) {
  return is_compressed(format) && format != NumberFormat::kFP8;
}

// Of a plain format.
static constexpr size_t bytes_per_element(NumberFormat format) {
  if (is_compressed(format)) std::abort();
  return format == NumberFormat::kF32 ? 4 : 2;
}

// Numbers of a row that share a scale. The last block of a row may be shorter.
inline constexpr size_t kBlockNumbers = 32;
// Numbers of a kQ4 row that share the scale of their blocks' scales.
inline constexpr size_t kSuperblockNumbers = 256;
// Numbers of a kNF4 row that share a scale.
inline constexpr size_t kNF4BlockNumbers = 64;
// Numbers of a kFP8 row that share a scale.
inline constexpr size_t kFP8BlockNumbers = 128;

static constexpr size_t blocks_of(size_t width, size_t block = kBlockNumbers) {
  return width / block + (width % block != 0 ? 1 : 0);
}

// Of a row of `width` numbers.
static constexpr size_t row_bytes(NumberFormat format, size_t width) {
  switch (format) {
    case NumberFormat::kQ8: return width + 2 * blocks_of(width);
    case NumberFormat::kQ4:
      return kBlockNumbers * blocks_of(width, 2 * kBlockNumbers) + 2 * blocks_of(width) +
             4 * blocks_of(width, kSuperblockNumbers);
    case NumberFormat::kNF4:
      return (kNF4BlockNumbers / 2 + sizeof(float)) * blocks_of(width, kNF4BlockNumbers);
    case NumberFormat::kFP8: return width + sizeof(float) * blocks_of(width, kFP8BlockNumbers);
    default: return width * bytes_per_element(format);
  }
}

// Of a row of a compressed format, `outliers` of whose numbers are stored by themselves besides, as
// f16 behind the rest: see compressed.h.
static constexpr size_t outliers_offset(NumberFormat format, size_t width) {
  return (row_bytes(format, width) + 1) / 2 * 2;
}
static constexpr size_t row_bytes(NumberFormat format, size_t width, size_t outliers) {
  if (outliers == 0) return row_bytes(format, width);
  return outliers_offset(format, width) + 2 * outliers;
}

static constexpr const char* number_format_name(NumberFormat format) {
  switch (format) {
    case NumberFormat::kF32: return "f32";
    case NumberFormat::kF16: return "f16";
    case NumberFormat::kBF16: return "bf16";
    case NumberFormat::kQ8: return "q8";
    case NumberFormat::kQ4: return "q4";
    case NumberFormat::kNF4: return "nf4";
    case NumberFormat::kFP8: return "fp8";
  }
  return "?";
}

// The launch boundary: calls body.operator()<F>() with the run-time format, which is a plain one,
// as a template parameter.
template <typename Body>
static inline void with_format(NumberFormat format, const Body& body) {
  switch (format) {
    case NumberFormat::kF32: return body.template operator()<NumberFormat::kF32>();
    case NumberFormat::kF16: return body.template operator()<NumberFormat::kF16>();
    case NumberFormat::kBF16: return body.template operator()<NumberFormat::kBF16>();
    case NumberFormat::kQ8:
    case NumberFormat::kQ4:
    case NumberFormat::kNF4:
    case NumberFormat::kFP8: std::abort();
  }
}

}  // namespace airllm::kernels

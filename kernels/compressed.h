// Rows of compressed weights: where their parts lie, and what their codes stand for. One row is
// independent of the others, so tiles may begin at any row; all parts of a row follow each other
// without gaps, at any address.
//
// q8, of `width` numbers in blocks of 32 (the last may be shorter):
//   int8  codes[width]
//   f16   scales[blocks]                  number i is codes[i] * scales[i / 32]
//
// q4, in blocks of 32 and superblocks of 256:
//   uint8 codes[32 * pairs]               of numbers 64 p … 64 p + 63 in pair p: the low half of
//                                         byte j is number j of its first block, the high half of
//                                         its second
//   uint8 steps[blocks]
//   int8  offsets[blocks]
//   f16   {step_unit, offset_unit}[superblocks]
//                                         number i is code * steps[b] * step_unit[s] +
//                                         offsets[b] * offset_unit[s], b = i / 32, s = i / 256
//
// nf4 (arXiv 2305.14314), in blocks of 64:
//   uint8 codes[32 * blocks]              block b's numbers as those of pair b of q4
//   f32   scales[blocks]                  number i is kNF4Values[code] * scales[i / 64]
//
// fp8, in blocks of 128:
//   uint8 codes[width]                    E4M3 (OCP, without infinity); its NaN does not occur
//   f32   scales[blocks]                  number i is the value of codes[i] * scales[i / 128]
//
// Outliers (after arXiv 2212.09720) are numbers at the same places of every row of a matrix. Their
// codes are those of a 0, and behind the row, at outliers_offset(), lies what each is short of:
//   f16   outliers[count]                 number index[j] is what its code stands for + outliers[j]
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/number_format.h"

namespace airllm::kernels {

// The parts of a q8 row.
struct Q8Row {
  const int8_t* codes;  // [width]
  const char* scales;   // [blocks] of f16, at any address
};

static inline Q8Row q8_row(const char* row, size_t width) {
  return {reinterpret_cast<const int8_t*>(row), row + width};
}

// The parts of a q4 row.
struct Q4Row {
  const uint8_t* codes;   // [32 * pairs of blocks]
  const uint8_t* steps;   // [blocks]
  const int8_t* offsets;  // [blocks]
  const char* units;      // [superblocks][2] of f16, at any address
};

static inline Q4Row q4_row(const char* row, size_t width) {
  const size_t blocks = blocks_of(width);
  const char* const steps = row + kBlockNumbers * blocks_of(width, 2 * kBlockNumbers);
  return {reinterpret_cast<const uint8_t*>(row), reinterpret_cast<const uint8_t*>(steps),
          reinterpret_cast<const int8_t*>(steps + blocks), steps + 2 * blocks};
}

// What nf4's codes stand for, with a scale of 1.
inline constexpr std::array<float, 16> kNF4Values = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

// The parts of an nf4 row.
struct NF4Row {
  const uint8_t* codes;  // [32 * blocks]
  const char* scales;    // [blocks] of f32, at any address
};

static inline NF4Row nf4_row(const char* row, size_t width) {
  return {reinterpret_cast<const uint8_t*>(row),
          row + kNF4BlockNumbers / 2 * blocks_of(width, kNF4BlockNumbers)};
}

// The parts of an fp8 row.
struct FP8Row {
  const uint8_t* codes;  // [width]
  const char* scales;    // [blocks] of f32, at any address
};

static inline FP8Row fp8_row(const char* row, size_t width) {
  return {reinterpret_cast<const uint8_t*>(row), row + width};
}

// The numbers that the codes of a row stand for, each rounded to f32 once.
void expand_row(NumberFormat format, const char* row, std::span<float> out);

// Makes a row with outliers at `index`, in ascending order, of `numbers`, by `compress`, which
// makes one without. What f16 cannot hold is cut off.
using CompressRow = void(NumberFormat format, const float* numbers, size_t width, char* out);
void compress_row_with_outliers(CompressRow* compress, NumberFormat format,
                                std::span<const size_t> index, std::span<float> numbers, char* row);

// Adds a row's outliers to what its codes stand for.
void add_outliers(NumberFormat format, const char* row, std::span<const size_t> index,
                  std::span<float> numbers);

// Makes all numbers that share a scale with number `index` of the row NaN.
void spoil(NumberFormat format, char* row, size_t width, size_t index);

// Those of block `block` of a row of `width` numbers, in `to`: as many as the block has.
std::span<const float> expand_block(NumberFormat format, const char* row, size_t width,
                                    size_t block, std::span<float, kBlockNumbers> to);

}  // namespace airllm::kernels

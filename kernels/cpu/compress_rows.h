// How numbers become codes: the one text that compress_row() of every instruction set is compiled
// of. Eight numbers go at a time, in vectors that each compiler and CPU has in its own way, and no
// sum depends on how: all give the same bytes.
//
// q8 and q4 are fitted to the least squares of the differences, without knowing what the weights
// will be multiplied with; docs/number-formats.md shows what that gives. nf4 is what bitsandbytes
// makes of them, and fp8 has the largest of a block at the end of its range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/compressed.h"

namespace airllm::kernels {
namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));

constexpr size_t kVectorNumbers = 8;
constexpr size_t kVectors = kBlockNumbers / kVectorNumbers;
constexpr float kMostQ8 = 127;
constexpr float kMostQ4 = 15;
constexpr float kMostStep = 255;
constexpr float kMostOffset = 127;
// Ranges that are tried for the codes of a q4 block, and how often a fit is bettered.
constexpr int kRangesTried = 9;
constexpr int kFits = 3;

inline Floats all(float number) { return Floats{} + number; }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }
inline Floats limited(Floats v, float least, float most) {
  v = v > least ? v : all(least);
  return v < most ? v : all(most);
}
// To the nearest integer, ties to even, of numbers below 2^22 in magnitude.
inline Floats rounded(Floats v) {
  const Floats magic = all(0x1.8p23F);
  return (v + magic) - magic;
}
inline float rounded(float number) { return rounded(all(number))[0]; }
inline float sum(Floats v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// The largest magnitude among the numbers of `count` vectors, of which none is NaN.
inline float most_of(const Floats* x, size_t count) {
  Floats largest{};
  for (size_t v = 0; v < count; ++v) {
    const Floats size = x[v] < 0 ? -x[v] : x[v];
    largest = size > largest ? size : largest;
  }
  float most = 0;
  for (size_t i = 0; i < kVectorNumbers; ++i) most = larger(most, largest[i]);
  return most;
}

// As f32_to_f16() and f16_to_f32() of convert.h, which is not for sources of one instruction set;
// but what is too large becomes the largest, and there is no NaN.
inline uint16_t to_f16(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7bffU);  // the largest
  if (magnitude < 0x38800000U) {  // a subnormal: the sum's last bit stands for 2^-24
    float size;
    std::memcpy(&size, &magnitude, sizeof(size));
    size += 0.5F;
    uint32_t sum_bits;
    std::memcpy(&sum_bits, &size, sizeof(sum_bits));
    return static_cast<uint16_t>(sign | (sum_bits - 0x3f000000U));
  }
  const uint32_t even = magnitude + 0xfffU + (magnitude >> 13 & 1U);
  return static_cast<uint16_t>(sign | ((even >> 13) - (112U << 10)));
}
inline float from_f16(uint16_t half) {
  const uint32_t exponent = half >> 10 & 0x1fU, mantissa = half & 0x3ffU;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-24F;
  const uint32_t bits = (exponent + 112) << 23 | mantissa << 13;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

// 32 numbers of which the first `count` matter; the others repeat the first and weigh nothing.
struct Block {
  Floats x[kVectors];
  Floats weight[kVectors];
  float count;

  void load(const float* numbers, size_t available) {
    float filled[kBlockNumbers], weights[kBlockNumbers];
    for (size_t i = 0; i < kBlockNumbers; ++i) {
      filled[i] = i < available ? numbers[i] : numbers[0];
      weights[i] = i < available ? 1.0F : 0.0F;
    }
    std::memcpy(x, filled, sizeof(x));
    std::memcpy(weight, weights, sizeof(weight));
    count = static_cast<float>(available < kBlockNumbers ? available : kBlockNumbers);
  }
};

// --- q8

// Codes for `scale`, and what they say of it.
struct Q8Try {
  Floats codes[kVectors];
  float error;       // the sum of the squared differences
  float best_scale;  // for these codes
};

inline Q8Try try_scale(const Block& block, float scale) {
  Q8Try out;
  const float inverse = scale > 0 ? 1 / scale : 0;
  Floats error{}, products{}, squares{};
  for (size_t v = 0; v < kVectors; ++v) {
    out.codes[v] = rounded(limited(block.x[v] * inverse, -kMostQ8, kMostQ8));
    const Floats off = (block.x[v] - out.codes[v] * scale) * block.weight[v];
    const Floats codes = out.codes[v] * block.weight[v];
    error += off * off;
    products += block.x[v] * codes;
    squares += codes * codes;
  }
  out.error = sum(error);
  const float all_squares = sum(squares);
  out.best_scale = all_squares > 0 ? sum(products) / all_squares : 0;
  return out;
}

inline void compress_q8(const float* numbers, size_t width, char* out) {
  Block block;
  for (size_t b = 0; b < blocks_of(width); ++b) {
    const size_t begin = b * kBlockNumbers;
    const size_t count = width - begin < kBlockNumbers ? width - begin : kBlockNumbers;
    block.load(numbers + begin, count);
    uint16_t scale = to_f16(most_of(block.x, kVectors) / kMostQ8), kept_scale = scale;
    Q8Try kept = try_scale(block, from_f16(scale));
    float next = kept.best_scale;
    for (int fit = 1; fit < kFits; ++fit) {
      scale = to_f16(next);
      const Q8Try tried = try_scale(block, from_f16(scale));
      next = tried.best_scale;
      if (tried.error >= kept.error) continue;
      kept = tried;
      kept_scale = scale;
    }
    float codes[kBlockNumbers];
    std::memcpy(codes, kept.codes, sizeof(codes));
    for (size_t i = 0; i < count; ++i) {
      out[begin + i] = static_cast<char>(static_cast<int8_t>(codes[i]));
    }
    std::memcpy(out + width + 2 * b, &kept_scale, sizeof(kept_scale));
  }
}

// --- q4

// x is about step * code + offset, with codes 0 … 15.
struct Line {
  float step;
  float offset;
};

inline Floats codes_of(Floats x, const Line& line) {
  const float inverse = line.step > 0 ? 1 / line.step : 0;
  return rounded(limited((x - line.offset) * inverse, 0, kMostQ4));
}

// The sum of the squared differences, and the line that is best for the codes that `line` gives.
inline float try_line(const Block& block, float numbers, const Line& line, Line& best) {
  Floats error{}, codes{}, squares{}, products{};
  for (size_t v = 0; v < kVectors; ++v) {
    const Floats code = codes_of(block.x[v], line);
    const Floats off = (block.x[v] - (code * line.step + line.offset)) * block.weight[v];
    const Floats counted = code * block.weight[v];
    error += off * off;
    codes += counted;
    squares += counted * code;
    products += counted * block.x[v];
  }
  const float all_codes = sum(codes), count = block.count;
  const float spread = count * sum(squares) - all_codes * all_codes;
  if (spread <= 0) {  // all codes are the same
    best = {0, numbers / count};
  } else {
    best.step = (count * sum(products) - all_codes * numbers) / spread;
    best.offset = (numbers - best.step * all_codes) / count;
  }
  return sum(error);
}

// From the range of the numbers, and from shorter ones, since a few numbers at the ends may well be
// further off when all others are nearer.
inline Line fit(const Block& from) {
  Floats low = from.x[0], high = from.x[0];
  for (const Floats& x : from.x) {
    low = x < low ? x : low;
    high = x > high ? x : high;
  }
  float least = low[0], most = high[0];
  for (size_t i = 1; i < kVectorNumbers; ++i) {
    least = smaller(least, low[i]);
    most = larger(most, high[i]);
  }
  // Counted from the least, so that sums lose nothing to a large offset.
  Block block = from;
  Floats numbers{};
  for (size_t v = 0; v < kVectors; ++v) {
    block.x[v] -= least;
    numbers += block.x[v] * block.weight[v];
  }
  const float all_numbers = sum(numbers), range = most - least;
  Line best{0, 0}, next;
  float least_error = try_line(block, all_numbers, best, next);
  for (int tried = 0; tried < kRangesTried; ++tried) {
    const float shrunk = 0.03F * static_cast<float>(tried) * range;
    Line line{(range - shrunk) / kMostQ4, shrunk / 2};
    for (int i = 0; i < kFits; ++i) {
      const float error = try_line(block, all_numbers, line, next);
      if (error < least_error) {
        least_error = error;
        best = line;
      }
      line = next;
    }
  }
  return {best.step, best.offset + least};
}

// As f16, and large enough that `most` of them reach what is wanted, where an f16 is.
inline uint16_t unit_of(float largest, float most) {
  const float wanted = largest / most;
  const uint16_t nearest = to_f16(wanted);
  return from_f16(nearest) < wanted && nearest < 0x7bff ? static_cast<uint16_t>(nearest + 1)
                                                        : nearest;
}

inline float code_of(float number, float unit, float least, float most) {
  return unit > 0 ? rounded(larger(least, smaller(most, number / unit))) : 0;
}

// One superblock of a row; the parts of the row are those of q4_row().
inline void compress_superblock(const float* numbers, size_t count, uint8_t* codes, uint8_t* steps,
                                int8_t* offsets, char* units) {
  constexpr size_t kMostBlocks = kSuperblockNumbers / kBlockNumbers;
  Block blocks[kMostBlocks];
  Line lines[kMostBlocks];
  float most_step = 0, most_offset = 0;
  for (size_t b = 0; b < blocks_of(count); ++b) {
    const size_t left = count - b * kBlockNumbers;
    blocks[b].load(numbers + b * kBlockNumbers, left < kBlockNumbers ? left : kBlockNumbers);
    lines[b] = fit(blocks[b]);
    most_step = larger(most_step, lines[b].step);
    most_offset = larger(most_offset, larger(lines[b].offset, -lines[b].offset));
  }
  const uint16_t stored[2] = {unit_of(most_step, kMostStep), unit_of(most_offset, kMostOffset)};
  const float step_unit = from_f16(stored[0]), offset_unit = from_f16(stored[1]);
  std::memcpy(units, stored, sizeof(stored));
  for (size_t b = 0; b < blocks_of(count); ++b) {
    const float step = code_of(lines[b].step, step_unit, 0, kMostStep);
    Line line{step * step_unit, lines[b].offset};
    // The offset that is best with this step, for the codes that there are.
    Floats rest{};
    for (size_t v = 0; v < kVectors; ++v) {
      const Floats x = blocks[b].x[v];
      rest += (x - codes_of(x, line) * line.step) * blocks[b].weight[v];
    }
    const float offset =
        code_of(sum(rest) / blocks[b].count, offset_unit, -kMostOffset, kMostOffset);
    line.offset = offset * offset_unit;
    steps[b] = static_cast<uint8_t>(step);
    offsets[b] = static_cast<int8_t>(offset);
    float found[kBlockNumbers];
    for (size_t v = 0; v < kVectors; ++v) {
      const Floats code = codes_of(blocks[b].x[v], line) * blocks[b].weight[v];
      std::memcpy(found + v * kVectorNumbers, &code, sizeof(code));
    }
    uint8_t* const pair = codes + b / 2 * kBlockNumbers;
    for (size_t i = 0; i < kBlockNumbers; ++i) {
      const auto code = static_cast<uint8_t>(found[i]);
      pair[i] = static_cast<uint8_t>(b % 2 == 0 ? code : pair[i] | code << 4);
    }
  }
}

inline void compress_q4(const float* numbers, size_t width, char* out) {
  const Q4Row row = q4_row(out, width);
  for (size_t begin = 0; begin < width; begin += kSuperblockNumbers) {
    const size_t left = width - begin, b = begin / kBlockNumbers;
    compress_superblock(numbers + begin, left < kSuperblockNumbers ? left : kSuperblockNumbers,
                        const_cast<uint8_t*>(row.codes) + begin / 2,
                        const_cast<uint8_t*>(row.steps) + b, const_cast<int8_t*>(row.offsets) + b,
                        const_cast<char*>(row.units) + begin / kSuperblockNumbers * 4);
  }
}

// --- nf4

// Between two values, what is above belongs to the upper one: the middles, as bitsandbytes has
// them.
constexpr float kNF4Borders[] = {
    -0.8480964004993439F,  -0.6106329262256622F,  -0.4599952697753906F,   -0.33967943489551544F,
    -0.23460740596055984F, -0.13791173323988914F, -0.045525018125772476F, 0.03979014977812767F,
    0.1202552504837513F,   0.2035212516784668F,   0.2920137718319893F,    0.3893125355243683F,
    0.5016634166240692F,   0.6427869200706482F,   0.8614784181118011F,
};

inline void compress_nf4(const float* numbers, size_t width, char* out) {
  const NF4Row row = nf4_row(out, width);
  char* const scales = const_cast<char*>(row.scales);
  for (size_t b = 0; b < blocks_of(width, kNF4BlockNumbers); ++b) {
    const size_t begin = b * kNF4BlockNumbers;
    const size_t left = width - begin;
    float filled[kNF4BlockNumbers] = {};
    std::memcpy(filled, numbers + begin,
                (left < kNF4BlockNumbers ? left : kNF4BlockNumbers) * sizeof(float));
    Floats x[2 * kVectors];
    std::memcpy(x, filled, sizeof(x));
    const float scale = most_of(x, 2 * kVectors);
    const float inverse = scale > 0 ? 1 / scale : 0;
    Ints found[2 * kVectors];
    for (size_t v = 0; v < 2 * kVectors; ++v) {
      const Floats relative = x[v] * inverse;
      Ints above{};
      for (const float border : kNF4Borders) above -= relative > all(border);  // true is -1
      found[v] = above;
    }
    int32_t codes[kNF4BlockNumbers];
    std::memcpy(codes, found, sizeof(codes));
    uint8_t* const pair = const_cast<uint8_t*>(row.codes) + b * kBlockNumbers;
    for (size_t i = 0; i < kBlockNumbers; ++i) {
      pair[i] = static_cast<uint8_t>(codes[i] | codes[i + kBlockNumbers] << 4);
    }
    std::memcpy(scales + b * sizeof(float), &scale, sizeof(scale));
  }
}

// --- fp8

// To the nearest E4M3, ties to even; what is too large becomes the largest.
inline uint8_t to_e4m3(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80U);
  uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude >= 0x43e00000U) return static_cast<uint8_t>(sign | 0x7eU);  // 448
  if (magnitude < 0x3c800000U) {  // a subnormal: the sum's last bit stands for 2^-9
    float size;
    std::memcpy(&size, &magnitude, sizeof(size));
    size += 0x1p14F;
    std::memcpy(&magnitude, &size, sizeof(magnitude));
    return static_cast<uint8_t>(sign | (magnitude - 0x46800000U));
  }
  magnitude += 0x7ffffU + (magnitude >> 20 & 1U);
  return static_cast<uint8_t>(sign | ((magnitude >> 20) - (120U << 3)));
}

inline void compress_fp8(const float* numbers, size_t width, char* out) {
  constexpr float kMost = 448, kLeast = 1e-30F;
  for (size_t begin = 0, b = 0; begin < width; begin += kFP8BlockNumbers, ++b) {
    const size_t left = width - begin;
    const size_t count = left < kFP8BlockNumbers ? left : kFP8BlockNumbers;
    float most = 0;
    for (size_t i = 0; i < count; ++i) {
      const float number = numbers[begin + i];
      most = larger(most, number < 0 ? -number : number);
    }
    // Below that, what scales the others up has no f32.
    const float scale = most < kLeast ? 0 : most / kMost;
    const float inverse = most < kLeast ? 0 : kMost / most;
    for (size_t i = 0; i < count; ++i) {
      out[begin + i] = static_cast<char>(to_e4m3(numbers[begin + i] * inverse));
    }
    std::memcpy(out + width + b * sizeof(float), &scale, sizeof(scale));
  }
}

inline void compress(NumberFormat format, const float* numbers, size_t width, char* out) {
  if (format == NumberFormat::kQ8) return compress_q8(numbers, width, out);
  if (format == NumberFormat::kQ4) return compress_q4(numbers, width, out);
  if (format == NumberFormat::kNF4) return compress_nf4(numbers, width, out);
  compress_fp8(numbers, width, out);
}

}  // namespace
}  // namespace airllm::kernels

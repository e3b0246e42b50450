// How numbers become codes: the one text that compress_row() of every instruction set is compiled
// of, in vectors that each compiler and CPU has in its own way. No result depends on how: all give
// the same bytes.
//
// q8 and q4 are fitted to the least squares of the differences, without knowing what the weights
// will be multiplied with; docs/number-formats.md shows what that gives. Eight blocks are fitted
// side by side, one in each lane of vectors, so that sums never go across lanes. nf4 is what
// bitsandbytes makes of the numbers, and fp8 has the largest of a block at the end of its range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "kernels/compressed.h"

namespace airllm::kernels {
namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
typedef uint16_t Words __attribute__((vector_size(32)));  // two in each lane
// At any address.
typedef float LooseFloats __attribute__((vector_size(32), aligned(1), may_alias));
typedef int32_t LooseInts __attribute__((vector_size(32), aligned(1), may_alias));

constexpr size_t kVectorNumbers = 8;
constexpr size_t kVectors = kBlockNumbers / kVectorNumbers;
constexpr float kMostQ8 = 127;
constexpr float kMostQ4 = 15;
constexpr float kMostStep = 255;
constexpr float kMostOffset = 127;

inline Floats all(float number) { return Floats{} + number; }
inline float larger(float a, float b) { return a > b ? a : b; }
// The second one where the first is NaN.
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats limited(Floats v, float least, float most) {
  return smaller(larger(v, all(least)), all(most));
}
inline Floats magnitude(Floats v) { return v < 0 ? -v : v; }
inline float most_lane(Floats v) {
  float most = v[0];
  for (size_t i = 1; i < kVectorNumbers; ++i) most = larger(most, v[i]);
  return most;
}
// 1 / v, but 0 for what is not above `least`.
inline Floats inverse_of(Floats v, float least) { return v > least ? 1 / v : Floats{}; }
inline Floats floats_of(Ints v) { return __builtin_convertvector(v, Floats); }

// Numbers below 2^22 in magnitude are rounded to the nearest integer, ties to even, by adding this:
// no bits are left for a fraction. The lowest bits of the sum are those of the integer, and sums of
// larger numbers, read as integers, are larger; that of a NaN with a sign is the least.
constexpr float kRounder = 0x1.8p23F;
constexpr int32_t kRounderBits = 0x4b400000;

inline Ints rounded_bits(Floats v) { return reinterpret_cast<Ints>(v + kRounder); }
// The bits of rounded numbers, no less than `least` and no more than `most`.
inline Ints limited_bits(Floats v, int32_t least, int32_t most) {
  const Ints low = Ints{} + (kRounderBits + least), high = Ints{} + (kRounderBits + most);
  Ints bits = rounded_bits(v);
  bits = bits > low ? bits : low;
  return bits < high ? bits : high;
}
inline Floats number_of(Ints bits) { return reinterpret_cast<Floats>(bits) - kRounder; }

// The largest magnitude among the numbers of `count` vectors, of which none is NaN.
inline float most_of(const Floats* x, size_t count) {
  Floats largest{};
  for (size_t v = 0; v < count; ++v) largest = larger(magnitude(x[v]), largest);
  return most_lane(largest);
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

// Makes columns of rows.
inline void turn(const Floats (&rows)[kVectorNumbers], Floats* columns) {
  Floats ones[kVectorNumbers], twos[kVectorNumbers];
  for (size_t i = 0; i < kVectorNumbers; i += 2) {
    const Floats a = rows[i], b = rows[i + 1];
    ones[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
    ones[i + 1] = __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (const size_t i : {size_t{0}, size_t{1}, size_t{4}, size_t{5}}) {
    const Floats a = ones[i], b = ones[i + 2];
    twos[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
    twos[i + 2] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (size_t i = 0; i < kVectorNumbers / 2; ++i) {
    const Floats a = twos[i], b = twos[i + 4];
    columns[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    columns[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// Number j of each of eight blocks in x[j]; of `count` numbers, with `absent` for those that the
// last block lacks, and blocks of one 0 where there are none.
inline void load_blocks(const float* numbers, size_t count, float absent, Floats* x) {
  float filled[kSuperblockNumbers];
  if (count < kSuperblockNumbers) {
    for (size_t i = 0; i < kSuperblockNumbers; ++i) {
      filled[i] = i < count ? numbers[i] : i % kBlockNumbers == 0 ? 0 : absent;
    }
    numbers = filled;
  }
  for (size_t j = 0; j < kBlockNumbers; j += kVectorNumbers) {
    Floats rows[kVectorNumbers];
    for (size_t b = 0; b < kVectorNumbers; ++b) {
      rows[b] = *reinterpret_cast<const LooseFloats*>(numbers + b * kBlockNumbers + j);
    }
    turn(rows, x + j);
  }
}

// The low bytes of what load_blocks() has the order of: those of block b in bytes[b].
inline void low_bytes(const Ints* x, Ints* bytes) {
  Floats words[kVectorNumbers], turned[kVectorNumbers];
  for (size_t w = 0; w < kVectorNumbers; ++w, x += 4) {
    words[w] = reinterpret_cast<Floats>((x[0] & 255) | (x[1] & 255) << 8 | (x[2] & 255) << 16 |
                                        x[3] << 24);
  }
  turn(words, turned);
  for (size_t b = 0; b < kVectorNumbers; ++b) bytes[b] = reinterpret_cast<Ints>(turned[b]);
}

// --- q8

inline Ints q8_bits(Floats x, Floats inverse) { return limited_bits(x * inverse, -127, 127); }

// Scales of eight blocks. Codes begin with that which the largest number asks for; each next scale
// is the best for the codes of the one before, and the best of them stays.
inline Floats fit_q8(const Floats* x) {
  constexpr int kFits = 2;
  constexpr float kLeastScale = 1e-20F;  // far below an f16
  Floats largest{};
  for (size_t j = 0; j < kBlockNumbers; ++j) largest = larger(magnitude(x[j]), largest);
  Floats scale = largest / kMostQ8, kept{}, gain{};
  for (int fit = 0; fit < kFits; ++fit) {
    const Floats inverse = inverse_of(scale, kLeastScale);
    Floats products{}, squares{};
    for (size_t j = 0; j < kBlockNumbers; ++j) {
      const Floats code = number_of(q8_bits(x[j], inverse));
      products += x[j] * code;
      squares += code * code;
    }
    scale = squares > 0 ? products / squares : Floats{};
    const Floats gained = products * scale;  // how much less the error is than with codes of 0
    kept = gained > gain ? scale : kept;
    gain = larger(gained, gain);
  }
  return kept;
}

inline void compress_q8(const float* numbers, size_t width, char* out) {
  for (size_t begin = 0; begin < width; begin += kSuperblockNumbers) {
    const size_t left = width - begin;
    const size_t count = left < kSuperblockNumbers ? left : kSuperblockNumbers;
    Floats x[kBlockNumbers];
    load_blocks(numbers + begin, count, 0, x);
    Floats scale = fit_q8(x);
    char* const scales = out + width + 2 * (begin / kBlockNumbers);
    for (size_t b = 0; b < blocks_of(count); ++b) {
      const uint16_t stored = to_f16(scale[b]);
      std::memcpy(scales + 2 * b, &stored, sizeof(stored));
      scale[b] = from_f16(stored);
    }
    const Floats inverse = inverse_of(scale, 0);
    Ints bits[kBlockNumbers], codes[kVectorNumbers];
    for (size_t j = 0; j < kBlockNumbers; ++j) bits[j] = q8_bits(x[j], inverse);
    low_bytes(bits, codes);
    std::memcpy(out + begin, codes, count);
  }
}

// --- q4

// x is about step * code + offset, with codes 0 … 15. While they are fitted, the numbers of a block
// are words of 15 bits: half of the vectors are enough for them, and their sums are exact. The
// least is at kLeastWord, others as many kStepWords above it as 15ths of the range; 0 is one that
// the block lacks.
constexpr float kStepWords = 1920;
constexpr float kLeastWord = 2 * kStepWords;

// Where fits begin: the first code's and the last one's distance from the least and the largest
// number, inwards, in 16ths of a 15th of the range. From a search over 17 x 17 of them for those
// that do best together, of normal, t5 and Laplace distributions and weights of two small models.
constexpr int8_t kStarts[][2] = {{0, 0}, {-6, 6}, {9, -3}, {3, -6},
                                 {6, 3}, {3, 9},  {-3, 3}, {9, 0}};
// How often the best of them is fitted to its codes.
constexpr int kFits = 3;

// x's code is (x - begin) * inverse >> kCodeShift, within 0 … 15.
constexpr int kCodeShift = 25;
struct Coding {
  Words begin, inverse;
};

inline Coding coding_of(Floats step, Floats offset) {
  constexpr float kOne = 1 << kCodeShift;
  constexpr float kMostWord = 0x7fff, kMostInverse = 0xffff;
  const auto words = [](Floats v) {
    const Ints word = __builtin_convertvector(v + 0.5F, Ints);
    return reinterpret_cast<Words>(word | word << 16);
  };
  return {words(limited(offset - step / 2, 0, kMostWord)),
          words(limited(kOne / step, 0, kMostInverse))};
}

#ifdef __AVX2__
inline Words codes_of(Words x, const Coding& coding) {
  const auto above =
      _mm256_subs_epu16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(coding.begin));
  const auto high = _mm256_mulhi_epu16(above, reinterpret_cast<__m256i>(coding.inverse));
  const auto code = _mm256_srli_epi16(high, kCodeShift - 16);
  return reinterpret_cast<Words>(_mm256_min_epi16(code, _mm256_set1_epi16(15)));
}

// Sums of the two products of each lane, of words below 2^15.
inline Ints dot(Words a, Words b) {
  return reinterpret_cast<Ints>(
      _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
#else
inline Words codes_of(Words x, const Coding& coding) {
  Words codes;
  for (size_t i = 0; i < 2 * kVectorNumbers; ++i) {
    const uint32_t above = x[i] > coding.begin[i] ? uint32_t{x[i]} - coding.begin[i] : 0;
    const uint32_t code = above * coding.inverse[i] >> kCodeShift;
    codes[i] = static_cast<uint16_t>(code < 15 ? code : 15);
  }
  return codes;
}

inline Ints dot(Words a, Words b) {
  const Ints x = reinterpret_cast<Ints>(a), y = reinterpret_cast<Ints>(b);
  return (x & 0xffff) * (y & 0xffff) + (x >> 16) * (y >> 16);
}
#endif

inline Ints lane_sums(Words v) { return dot(v, Words{} + 1); }

// For codes of eight blocks, lines of the least squared error.
struct Lines {
  Floats gain{};   // how much less the error is than with the mean alone, times a constant
  Floats step{};   // in words
  Floats codes{};  // the sum of the codes, which says the offset
};

// Eight blocks, as load_blocks() has them.
struct Q4Blocks {
  Floats x[kBlockNumbers];
  Words words[kBlockNumbers / 2];  // numbers j and j + 16 in words[j]
  Floats least, unit;              // word w is for least + (w - kLeastWord) * unit
  Floats count;                    // of numbers; at least 1
  Floats total;                    // the sum of the words

  void load(const float* numbers, size_t available) {
    load_blocks(numbers, available, -__builtin_nanf(""), x);
    for (size_t b = 0; b < kVectorNumbers; ++b) {
      const size_t before = b * kBlockNumbers, there = available > before ? available - before : 1;
      count[b] = static_cast<float>(there < kBlockNumbers ? there : kBlockNumbers);
    }
    least = x[0];
    Floats most = x[0];
    for (const Floats& number : x) {
      least = smaller(number, least);
      most = larger(number, most);
    }
    // Numbers far beyond what q4 can express may become anything.
    constexpr float kMost = 1e30F, kLeastUnit = 1e-30F;
    least = larger(least, all(-kMost));
    unit = (smaller(most, all(kMost)) - least) / (kMostQ4 * kStepWords);
    const Floats inverse = inverse_of(unit, kLeastUnit);
    Ints sum{};
    for (size_t j = 0; j < kBlockNumbers / 2; ++j) {
      const Ints low = rounded_bits((x[j] - least) * inverse + kLeastWord);
      const Ints high = rounded_bits((x[j + kBlockNumbers / 2] - least) * inverse + kLeastWord);
      words[j] = reinterpret_cast<Words>((low & 0x7fff) | (high & 0x7fff) << 16);
      sum += lane_sums(words[j]);
    }
    total = floats_of(sum);
  }

  Floats offset(const Lines& lines) const { return (total - lines.step * lines.codes) / count; }

  // Keeps the lines that are best for the codes, where they are better than those that there are.
  void try_codes(const Coding& coding, Lines& kept) const {
    Ints squares{}, products{};
    Words sums{};
    for (const Words& x_words : words) {
      const Words codes = codes_of(x_words, coding);
      sums += codes;
      squares += dot(codes, codes);
      products += dot(codes, x_words);
    }
    const Floats codes = floats_of(lane_sums(sums));
    const Floats spread = count * floats_of(squares) - codes * codes;
    const Floats joint = count * floats_of(products) - codes * total;
    const Floats step = joint / spread, gain = step * joint;
    const Ints better = (spread > 0) & (joint > 0) & (gain > kept.gain);
    kept.gain = better ? gain : kept.gain;
    kept.step = better ? step : kept.step;
    kept.codes = better ? codes : kept.codes;
  }

  Lines fit() const {
    Lines kept;
    for (const auto& [low, high] : kStarts) {
      const float step = kStepWords * (1 - static_cast<float>(low + high) / (16 * kMostQ4));
      const float offset = kLeastWord + kStepWords / 16 * static_cast<float>(low);
      try_codes(coding_of(all(step), all(offset)), kept);
    }
    for (int fit = 0; fit < kFits; ++fit) try_codes(coding_of(kept.step, offset(kept)), kept);
    return kept;
  }
};

// As f16, and large enough that `most` of them reach what is wanted, where an f16 is.
inline uint16_t unit_of(float largest, float most) {
  const float wanted = largest / most;
  const uint16_t nearest = to_f16(wanted);
  return from_f16(nearest) < wanted && nearest < 0x7bff ? static_cast<uint16_t>(nearest + 1)
                                                        : nearest;
}

inline Floats units_in(Floats numbers, float unit, float least, float most) {
  return unit > 0 ? number_of(rounded_bits(limited(numbers / unit, least, most))) : Floats{};
}

// One superblock of a row; the parts of the row are those of q4_row().
inline void compress_superblock(const float* numbers, size_t count, uint8_t* codes, uint8_t* steps,
                                int8_t* offsets, char* units) {
  Q4Blocks blocks;
  blocks.load(numbers, count);
  const Lines lines = blocks.fit();
  const Floats steps_wanted = lines.step * blocks.unit;
  const Floats offsets_wanted = blocks.least + (blocks.offset(lines) - kLeastWord) * blocks.unit;
  const uint16_t stored[2] = {unit_of(most_lane(steps_wanted), kMostStep),
                              unit_of(most_lane(magnitude(offsets_wanted)), kMostOffset)};
  const float step_unit = from_f16(stored[0]), offset_unit = from_f16(stored[1]);
  std::memcpy(units, stored, sizeof(stored));
  const Floats step_units = units_in(steps_wanted, step_unit, 0, kMostStep);
  const Floats step = step_units * step_unit;
  // What is best with this step, for the codes that there are.
  const Floats offset_units =
      units_in(offsets_wanted + (steps_wanted - step) * (lines.codes / blocks.count), offset_unit,
               -kMostOffset, kMostOffset);
  const Floats offset = offset_units * offset_unit, inverse = inverse_of(step, 0);
  Ints bits[kBlockNumbers], bytes[kVectorNumbers];
  for (size_t j = 0; j < kBlockNumbers; ++j) {
    bits[j] = limited_bits((blocks.x[j] - offset) * inverse, 0, 15);
  }
  low_bytes(bits, bytes);
  for (size_t b = 0; b < blocks_of(count); ++b) {
    steps[b] = static_cast<uint8_t>(step_units[b]);
    offsets[b] = static_cast<int8_t>(offset_units[b]);
    if (b % 2 != 0) continue;
    *reinterpret_cast<LooseInts*>(codes + b / 2 * kBlockNumbers) = bytes[b] | bytes[b + 1] << 4;
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

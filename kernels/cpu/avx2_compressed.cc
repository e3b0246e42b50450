// The product with compressed weights, by AVX2 and FMA.
//
// Recipe, for every row and output: each block of 32 inputs is rounded to 16-bit integers by a
// scale of its own (prepare), so that the products of a block with its codes are added exactly, as
// integers: at most 4 x 127 x 32767 in a lane, which f32 still holds exactly. nf4's codes stand for
// 16-bit integers, at most 16384, whose sums f32 rounds. The eight lanes of a block's sum times the
// product of both scales are added to the even or the odd blocks' accumulator, fused, blocks
// upwards. To q4's come its offsets times the sums of the blocks' inputs, eight blocks at a time.
// Everything else only chooses when a step is done.
//
// A micro-kernel takes 4 rows x 1 output, whose codes it widens once. 1024 inputs of 4 rows and of
// 16 outputs stay in the nearest cache; the lanes of unfinished sums wait in memory. The weights of
// later outputs are asked for meanwhile: the CPU itself looks no further than to the end of a page.
//
// Codes are widened by shifts of 16-bit words, which leave even numbers in one vector and odd ones
// in another; so prepared inputs lie in that order: the 16 even ones of a block, then the 16 odd
// ones.
#include "kernels/compressed.h"
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr size_t kGroup = 8;         // blocks whose scales are made at once
constexpr size_t kOutBlock = 16;     // outputs of a tile
constexpr size_t kRowBlock = 64;     // rows of a tile
constexpr size_t kDepthBlocks = 32;  // of the inputs, which tiles of more than one row take at once

// What a group of blocks takes of a weight row, all its parts together.
template <NumberFormat F>
constexpr size_t kGroupBytes = row_bytes(F, kGroup* kBlockNumbers);

// Where a prepared row's parts lie. Blocks are filled up to whole groups, with zeros.
struct PreparedRow {
  int16_t* codes;  // [groups * 8][32], even inputs first
  float* scales;   // [groups * 8]
  float* sums;     // [groups * 8]: of a block's inputs, as rounded
};

size_t padded_blocks(size_t in) { return blocks_of(blocks_of(in), kGroup) * kGroup; }

PreparedRow prepared_row(void* prepared, size_t in, size_t row) {
  const size_t blocks = padded_blocks(in);
  char* const at = static_cast<char*>(prepared) + row * prepared_bytes(in);
  auto* const scales = reinterpret_cast<float*>(at + blocks * kBlockNumbers * sizeof(int16_t));
  return {reinterpret_cast<int16_t*>(at), scales, scales + blocks};
}

// Rounds 32 inputs. Where one is no finite number, all results are NaN; where all are too small to
// matter (the inverse of their scale has no f32), they are 0.
void prepare_block(const float* x, const PreparedRow& to, size_t block) {
  constexpr float kMost = 32767;
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 largest = _mm256_setzero_ps(), spoiled = _mm256_setzero_ps();
  for (size_t i = 0; i < kBlockNumbers; i += kLanes) {
    const __m256 numbers = _mm256_loadu_ps(x + i);
    largest = _mm256_max_ps(largest, _mm256_and_ps(numbers, magnitude));
    spoiled = _mm256_add_ps(spoiled, _mm256_sub_ps(numbers, numbers));  // 0 or NaN
  }
  const float most = max_lanes(largest);
  const bool is_none = most < 1e-30f;
  const float scale = (is_none ? 0 : most / kMost) + sum_lanes(spoiled);
  const __m256 inverse = _mm256_set1_ps(is_none ? 0 : kMost / most);
  __m256i rounded[4];
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < 4; ++i) {
    const __m256 numbers = _mm256_loadu_ps(x + i * kLanes);
    rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(numbers, inverse));
    sum = _mm256_add_epi32(sum, rounded[i]);
  }
  // Even and odd inputs of 16, as 16-bit words in order.
  __m256i even[2], odd[2];
  for (size_t i = 0; i < 2; ++i) {
    // A 64-bit lane holds an even and an odd input: the even one's word, and the odd one's.
    const __m256i a = rounded[2 * i], b = rounded[2 * i + 1];
    even[i] = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), _MM_SHUFFLE(2, 0, 2, 0)));
    odd[i] = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), _MM_SHUFFLE(3, 1, 3, 1)));
    even[i] = _mm256_permute4x64_epi64(even[i], _MM_SHUFFLE(3, 1, 2, 0));
    odd[i] = _mm256_permute4x64_epi64(odd[i], _MM_SHUFFLE(3, 1, 2, 0));
  }
  auto* const codes = reinterpret_cast<__m256i*>(to.codes + block * kBlockNumbers);
  _mm256_storeu_si256(codes, _mm256_permute4x64_epi64(_mm256_packs_epi32(even[0], even[1]),
                                                      _MM_SHUFFLE(3, 1, 2, 0)));
  _mm256_storeu_si256(codes + 1, _mm256_permute4x64_epi64(_mm256_packs_epi32(odd[0], odd[1]),
                                                          _MM_SHUFFLE(3, 1, 2, 0)));
  __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, _MM_SHUFFLE(1, 0, 3, 2)));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, _MM_SHUFFLE(2, 3, 0, 1)));
  to.scales[block] = scale;
  to.sums[block] = scale * static_cast<float>(_mm_cvtsi128_si32(total));
}

void prepare_row(const float* x, size_t in, const PreparedRow& to) {
  const size_t whole = in / kBlockNumbers, all = padded_blocks(in);
  for (size_t b = 0; b < whole; ++b) prepare_block(x + b * kBlockNumbers, to, b);
  size_t b = whole;
  if (in % kBlockNumbers != 0) {
    float rest[kBlockNumbers] = {};
    std::memcpy(rest, x + whole * kBlockNumbers, in % kBlockNumbers * sizeof(float));
    prepare_block(rest, to, b++);
  }
  std::memset(to.codes + b * kBlockNumbers, 0, (all - b) * kBlockNumbers * sizeof(int16_t));
  for (; b < all; ++b) to.scales[b] = to.sums[b] = 0;
}

// A weight row's codes of a group of blocks, in pairs, and what they stand for. Where a q8 row ends
// inside the group, all comes from a copy that is filled up with zeros, so that nothing is read
// behind it.
template <NumberFormat F>
struct Group;

template <>
struct Group<NumberFormat::kQ8> {
  static constexpr size_t kPairBytes = 2 * kBlockNumbers;
  const char* codes;
  size_t pairs;
  __m256 scales;
  char rest[kGroup * kBlockNumbers];

  inline void load(const char* row, size_t in, size_t first_block) {
    const char* const halves = row + in + first_block * 2;
    const size_t left = in - first_block * kBlockNumbers;
    codes = row + first_block * kBlockNumbers;
    pairs = kGroup / 2;
    if (left >= kGroup * kBlockNumbers) {
      scales = load8<NumberFormat::kF16>(halves);
    } else {
      load_rest(halves, left);
    }
  }

  // The even and the odd codes of both blocks of a pair.
  static inline void widen(const char* pair, __m256i (&even)[2], __m256i (&odd)[2]) {
    for (size_t b = 0; b < 2; ++b) {
      const __m256i words =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair + b * kBlockNumbers));
      even[b] = _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8);
      odd[b] = _mm256_srai_epi16(words, 8);
    }
  }

 private:
  __attribute__((noinline)) void load_rest(const char* halves, size_t left) {
    uint16_t few[kGroup] = {};
    std::memset(rest, 0, sizeof(rest));
    std::memcpy(rest, codes, left);
    std::memcpy(few, halves, blocks_of(left) * 2);
    codes = rest;
    pairs = (blocks_of(left) + 1) / 2;
    scales = load8<NumberFormat::kF16>(reinterpret_cast<const char*>(few));
  }
};

template <>
struct Group<NumberFormat::kQ4> {
  static constexpr size_t kPairBytes = kBlockNumbers;
  const char* codes;  // as they are stored
  size_t pairs;
  __m256 scales;
  __m256 offsets;

  inline void load(const char* row, size_t in, size_t first_block) {
    const Q4Row parts = q4_row(row, in);
    const size_t left = blocks_of(in) - first_block;
    codes = reinterpret_cast<const char*>(parts.codes) + first_block / 2 * kBlockNumbers;
    uint64_t steps = 0, shifts = 0;
    if (left >= kGroup) {
      pairs = kGroup / 2;
      std::memcpy(&steps, parts.steps + first_block, kGroup);
      std::memcpy(&shifts, parts.offsets + first_block, kGroup);
    } else {
      pairs = (left + 1) / 2;
      for (size_t i = left; i-- > 0;) {
        steps = steps << 8 | parts.steps[first_block + i];
        shifts = shifts << 8 | static_cast<uint8_t>(parts.offsets[first_block + i]);
      }
    }
    const char* const units = parts.units + first_block / kGroup * 4;
    const __m256 step_unit = _mm256_set1_ps(load1<NumberFormat::kF16>(units));
    const __m256 offset_unit = _mm256_set1_ps(load1<NumberFormat::kF16>(units + 2));
    const __m128i step_bytes = _mm_cvtsi64_si128(static_cast<long long>(steps));
    const __m128i offset_bytes = _mm_cvtsi64_si128(static_cast<long long>(shifts));
    scales = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(step_bytes)), step_unit);
    offsets = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(offset_bytes)), offset_unit);
  }

  static inline void widen(const char* pair, __m256i (&even)[2], __m256i (&odd)[2]) {
    const __m256i low = _mm256_set1_epi16(0xf);
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair));
    even[0] = _mm256_and_si256(words, low);
    odd[0] = _mm256_and_si256(_mm256_srli_epi16(words, 8), low);
    even[1] = _mm256_and_si256(_mm256_srli_epi16(words, 4), low);
    odd[1] = _mm256_srli_epi16(words, 12);
  }
};

// Four products of a lane, 4 x 16384 x 32767, are just below 2^31.
constexpr float kNF4Unit = 16384;

struct NF4Table {
  alignas(16) int8_t bytes[2][16];  // of kNF4Values in units of 1 / kNF4Unit: lower, upper
};

constexpr NF4Table make_nf4_table() {
  NF4Table out{};
  for (size_t i = 0; i < 16; ++i) {
    const float scaled = kNF4Values[i] * kNF4Unit;
    const auto nearest = static_cast<int>(scaled + (scaled < 0 ? -0.5F : 0.5F));
    out.bytes[0][i] = static_cast<int8_t>(nearest & 0xff);
    out.bytes[1][i] = static_cast<int8_t>(nearest >> 8);
  }
  return out;
}
constexpr NF4Table kNF4Table = make_nf4_table();

template <>
struct Group<NumberFormat::kNF4> {
  static constexpr size_t kPairBytes = kBlockNumbers;
  const char* codes;  // as they are stored
  size_t pairs;
  __m256 scales;

  inline void load(const char* row, size_t in, size_t first_block) {
    const NF4Row parts = nf4_row(row, in);
    const size_t first_pair = first_block / 2;
    const size_t left = blocks_of(in, kNF4BlockNumbers) - first_pair;
    codes = reinterpret_cast<const char*>(parts.codes) + first_pair * kBlockNumbers;
    pairs = smaller(left, kGroup / 2);
    float of_pairs[kGroup / 2] = {};
    std::memcpy(of_pairs, parts.scales + first_pair * sizeof(float), pairs * sizeof(float));
    const __m256 all = _mm256_castps128_ps256(_mm_loadu_ps(of_pairs));
    scales = _mm256_mul_ps(_mm256_permutevar8x32_ps(all, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                           _mm256_set1_ps(1 / kNF4Unit));
  }

  // A value's lower byte and its upper one are looked up by themselves.
  static inline void widen(const char* pair, __m256i (&even)[2], __m256i (&odd)[2]) {
    const __m256i low_bytes = table(0), high_bytes = table(1);
    const __m256i nibble = _mm256_set1_epi8(0xf), lower = _mm256_set1_epi16(0xff);
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair));
    for (size_t b = 0; b < 2; ++b) {
      const __m256i code = _mm256_and_si256(b == 0 ? bytes : _mm256_srli_epi16(bytes, 4), nibble);
      const __m256i low = _mm256_shuffle_epi8(low_bytes, code);
      const __m256i high = _mm256_shuffle_epi8(high_bytes, code);
      even[b] = _mm256_or_si256(_mm256_and_si256(low, lower), _mm256_slli_epi16(high, 8));
      odd[b] = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_andnot_si256(lower, high));
    }
  }

 private:
  static inline __m256i table(size_t which) {
    return _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(kNF4Table.bytes[which])));
  }
};

// Adds a block's products to `lanes`.
inline __m256 add_block(__m256i even, __m256i odd, const int16_t* inputs, const float* scale,
                        __m256 lanes) {
  const auto* const x = reinterpret_cast<const __m256i*>(inputs);
  const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256(x)),
                                       _mm256_madd_epi16(odd, _mm256_loadu_si256(x + 1)));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_broadcast_ss(scale), lanes);
}

// Unfinished sums of one row and output.
struct alignas(32) Sums {
  float lanes[2][kLanes];
  float offsets[kLanes];
};

// Blocks [begin, end) of one output's weights; `begin` is a group's first.
struct Run {
  const char* weight;  // the output's
  size_t in;
  size_t begin, end;
  const char* ahead;  // the same blocks of an output that comes later
};

// Adds a run's products with kRows rows to `sums`, which lie kOutBlock apart. All loops over rows
// are unrolled: with one that is not, the compiler keeps all sums in memory.
template <NumberFormat F, size_t kRows>
inline void add_run(const Run& run, const PreparedRow* x, Sums* sums) {
  constexpr bool kHasOffsets = F == NumberFormat::kQ4;
  __m256 lanes[kRows][2], offsets[kRows];
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const Sums& from = sums[r * kOutBlock];
    lanes[r][0] = _mm256_load_ps(from.lanes[0]);
    lanes[r][1] = _mm256_load_ps(from.lanes[1]);
    if constexpr (kHasOffsets) offsets[r] = _mm256_load_ps(from.offsets);
  }
  Group<F> group;
  const char* ahead = run.ahead;
  for (size_t first = run.begin; first < run.end; first += kGroup) {
    for (size_t i = 0; i < kGroupBytes<F>; i += kLineBytes) _mm_prefetch(ahead + i, _MM_HINT_T0);
    ahead += kGroupBytes<F>;
    group.load(run.weight, run.in, first);
    alignas(32) float scales[kRows][kGroup];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      _mm256_store_ps(scales[r], _mm256_mul_ps(group.scales, _mm256_loadu_ps(x[r].scales + first)));
      if constexpr (kHasOffsets) {
        offsets[r] = _mm256_fmadd_ps(group.offsets, _mm256_loadu_ps(x[r].sums + first), offsets[r]);
      }
    }
    // Not unrolled: the compiler would keep the codes of many blocks at once, in memory.
#pragma GCC unroll 1
    for (size_t pair = 0; pair < group.pairs; ++pair) {
      __m256i even[2], odd[2];
      Group<F>::widen(group.codes + pair * Group<F>::kPairBytes, even, odd);
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        const int16_t* const inputs = x[r].codes + (first + 2 * pair) * kBlockNumbers;
        lanes[r][0] = add_block(even[0], odd[0], inputs, &scales[r][2 * pair], lanes[r][0]);
        lanes[r][1] = add_block(even[1], odd[1], inputs + kBlockNumbers, &scales[r][2 * pair + 1],
                                lanes[r][1]);
      }
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    Sums& to = sums[r * kOutBlock];
    _mm256_store_ps(to.lanes[0], lanes[r][0]);
    _mm256_store_ps(to.lanes[1], lanes[r][1]);
    if constexpr (kHasOffsets) _mm256_store_ps(to.offsets, offsets[r]);
  }
}

// The run's products with `rows` rows from `row` on, for `outs` outputs from its own on.
template <NumberFormat F, size_t kRows>
void add_outputs(const MatmulArgs& args, size_t row, Run run, size_t outs, Sums* sums) {
  PreparedRow x[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    x[r] = prepared_row(const_cast<void*>(args.prepared), args.in, row + r);
  }
  const size_t bytes = weight_stride(args);
  for (size_t o = 0; o < outs; ++o, run.weight += bytes, run.ahead += bytes) {
    add_run<F, kRows>(run, x, sums + o);
  }
}

inline float finish(NumberFormat format, const Sums& sums) {
  __m256 all = _mm256_add_ps(_mm256_load_ps(sums.lanes[0]), _mm256_load_ps(sums.lanes[1]));
  if (format == NumberFormat::kQ4) all = _mm256_add_ps(all, _mm256_load_ps(sums.offsets));
  return sum_lanes(all);
}

// `rows` rows from `row` on, `outs` outputs from `out` on: at most a block of each.
template <NumberFormat F>
void multiply_tile(const MatmulArgs& args, size_t row, size_t rows, size_t out, size_t outs) {
  const size_t bytes = weight_stride(args), blocks = blocks_of(args.in);
  const char* const weight = static_cast<const char*>(args.weight) + out * bytes;
  // One row alone takes an output's weights as they lie.
  const size_t depth = args.rows == 1 ? blocks : kDepthBlocks;
  const size_t outs_ahead = args.rows == 1 ? 2 : kOutBlock;
  Sums sums[kRowBlock][kOutBlock];
  std::memset(sums, 0, rows * sizeof(sums[0]));
  for (size_t begin = 0; begin < blocks; begin += depth) {
    const char* const ahead = weight + outs_ahead * bytes + begin / kGroup * kGroupBytes<F>;
    const Run run{weight, args.in, begin, smaller(begin + depth, blocks), ahead};
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) add_outputs<F, 4>(args, row + r, run, outs, sums[r]);
    for (; r + 2 <= rows; r += 2) add_outputs<F, 2>(args, row + r, run, outs, sums[r]);
    if (r < rows) add_outputs<F, 1>(args, row + r, run, outs, sums[r]);
  }
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < outs; ++o) {
      float* const y = args.y + (row + r) * args.y_stride + out + o;
      const float sum = finish(F, sums[r][o]);
      *y = args.accumulate ? *y + sum : sum;
    }
  }
}

template <NumberFormat F>
void multiply(const MatmulArgs& args, size_t begin, size_t end) {
  for (size_t out = begin; out < end; out += kOutBlock) {
    for (size_t row = 0; row < args.rows; row += kRowBlock) {
      multiply_tile<F>(args, row, smaller(kRowBlock, args.rows - row), out,
                       smaller(kOutBlock, end - out));
    }
  }
}

}  // namespace

static_assert(kGroup * kBlockNumbers == kSuperblockNumbers);

size_t prepared_bytes(size_t in) {
  return padded_blocks(in) * (kBlockNumbers * sizeof(int16_t) + 2 * sizeof(float));
}

void prepare(const MatmulArgs& args, void* prepared, ThreadPool& pool) {
  pool.run(args.rows, grain_for(args.in, 1), [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      prepare_row(args.x + row * args.x_stride, args.in, prepared_row(prepared, args.in, row));
    }
  });
}

void matmul_compressed(const MatmulArgs& args, ThreadPool& pool) {
  const size_t steps_per_out = args.in * args.rows / kBlockNumbers;
  pool.run(args.out, grain_for(steps_per_out, 1), [&](size_t begin, size_t end) {
    switch (args.format) {
      case NumberFormat::kQ8: return multiply<NumberFormat::kQ8>(args, begin, end);
      case NumberFormat::kQ4: return multiply<NumberFormat::kQ4>(args, begin, end);
      default: return multiply<NumberFormat::kNF4>(args, begin, end);
    }
  });
}

}  // namespace airllm::kernels::avx2

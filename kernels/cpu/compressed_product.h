// The product with compressed weights, written once for the vectors of AVX2 and of AVX-512: the
// template parameter V says how codes are widened and how a pair of blocks is multiplied; see
// avx2_compressed.cc.
//
// Recipe, for every row and output: each block of 32 inputs is rounded to 16-bit integers by a
// scale of its own (prepare), so that the products of a block with its codes are added exactly, as
// integers: lane i of eight has those of numbers 4i … 4i+3, at most 4 x 127 x 32767, which f32
// still holds exactly. nf4's codes stand for 16-bit integers, at most 16384, whose sums f32 rounds.
// The eight lanes of a block's sum times the product of both scales are added to the even or the
// odd blocks' accumulator, fused, blocks upwards. To q4's come its offsets times the sums of the
// blocks' inputs, eight blocks at a time. Everything else only chooses when a step is done, so that
// a result is the same to the bit however it is cut, and the same of both instruction sets.
//
// A micro-kernel takes a few rows x 1 output, whose codes it widens once. A thousand inputs or less
// of those rows and of 16 outputs stay in the nearest cache; the lanes of unfinished sums wait in
// memory. The weights of later outputs are asked for meanwhile: the CPU itself looks no further
// than to the end of a page.
//
// Codes are widened by shifts of 16-bit words, which leave even numbers in one vector and odd ones
// in another; so prepared inputs lie in that order, and as V's vectors want them.
#pragma once

#include "kernels/compressed.h"
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr size_t kGroup = 8;      // blocks whose scales are made at once
constexpr size_t kOutBlock = 16;  // outputs of a tile
constexpr size_t kRowBlock = 64;  // rows of a tile

// What a group of blocks takes of a weight row, all its parts together.
template <NumberFormat F>
constexpr size_t kGroupBytes = row_bytes(F, kGroup* kBlockNumbers);

// Where a prepared row's parts lie. Blocks are filled up to whole groups, with zeros.
struct PreparedRow {
  int16_t* codes;  // [groups * 4][64]: of a pair of blocks, as V::store_pair orders them
  float* scales;   // [groups * 8]
  float* sums;     // [groups * 8]: of a block's inputs, as rounded
};

size_t padded_blocks(size_t in) { return blocks_of(blocks_of(in), kGroup) * kGroup; }

size_t prepared_row_bytes(size_t in) {
  return padded_blocks(in) * (kBlockNumbers * sizeof(int16_t) + 2 * sizeof(float));
}

PreparedRow prepared_row(void* prepared, size_t in, size_t row) {
  const size_t blocks = padded_blocks(in);
  char* const at = static_cast<char*>(prepared) + row * prepared_row_bytes(in);
  auto* const scales = reinterpret_cast<float*>(at + blocks * kBlockNumbers * sizeof(int16_t));
  return {reinterpret_cast<int16_t*>(at), scales, scales + blocks};
}

// Inputs of a block as they are rounded; the words in order.
struct RoundedBlock {
  __m256i even, odd;
  float scale, sum;
};

// Rounds 32 inputs. Where one is no finite number, all results are NaN; where all are too small to
// matter (the inverse of their scale has no f32), they are 0.
RoundedBlock round_block(const float* x) {
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
  __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, _MM_SHUFFLE(1, 0, 3, 2)));
  total = _mm_add_epi32(total, _mm_shuffle_epi32(total, _MM_SHUFFLE(2, 3, 0, 1)));
  return {_mm256_permute4x64_epi64(_mm256_packs_epi32(even[0], even[1]), _MM_SHUFFLE(3, 1, 2, 0)),
          _mm256_permute4x64_epi64(_mm256_packs_epi32(odd[0], odd[1]), _MM_SHUFFLE(3, 1, 2, 0)),
          scale, scale * static_cast<float>(_mm_cvtsi128_si32(total))};
}

// Block `block` of a row; of a row's last one those inputs that it has not, and of a block behind
// it all, are 0.
RoundedBlock round_block_of(const float* x, size_t in, size_t block) {
  const size_t begin = block * kBlockNumbers;
  if (begin + kBlockNumbers <= in) return round_block(x + begin);
  float rest[kBlockNumbers] = {};
  if (begin < in) std::memcpy(rest, x + begin, (in - begin) * sizeof(float));
  return round_block(rest);
}

template <typename V>
void prepare_row(const float* x, size_t in, const PreparedRow& to) {
  for (size_t block = 0; block < padded_blocks(in); block += 2) {
    const RoundedBlock first = round_block_of(x, in, block);
    const RoundedBlock second = round_block_of(x, in, block + 1);
    V::store_pair(to.codes + block * kBlockNumbers, first, second);
    to.scales[block] = first.scale;
    to.scales[block + 1] = second.scale;
    to.sums[block] = first.sum;
    to.sums[block + 1] = second.sum;
  }
}

// A weight row's codes of a group of blocks, in pairs as V::widen takes them, and their scales.
// Where a q8 row ends inside the group, all comes from a copy that is filled up with zeros, so that
// nothing is read behind it.
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
};

// Four products of a lane, 4 x 16384 x 32767, are just below 2^31.
constexpr float kNF4Unit = 16384;

// kNF4Values in units of 1 / kNF4Unit.
struct NF4Table {
  int16_t values[16];
};

constexpr NF4Table make_nf4_table() {
  NF4Table out{};
  for (size_t i = 0; i < 16; ++i) {
    const float scaled = kNF4Values[i] * kNF4Unit;
    out.values[i] = static_cast<int16_t>(scaled + (scaled < 0 ? -0.5F : 0.5F));
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
};

// Unfinished sums of one row and output.
struct alignas(32) Sums {
  float lanes[2 * kLanes];  // of the even and the odd blocks, as V::Lanes has them
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
template <typename V, NumberFormat F, size_t kRows>
inline void add_run(const Run& run, const PreparedRow* x, Sums* sums) {
  constexpr bool kHasOffsets = F == NumberFormat::kQ4;
  typename V::Lanes lanes[kRows];
  __m256 offsets[kRows];
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    const Sums& from = sums[r * kOutBlock];
    lanes[r] = V::load(from.lanes);
    if constexpr (kHasOffsets) offsets[r] = _mm256_load_ps(from.offsets);
  }
  Group<F> group;
  const char* ahead = run.ahead;
  for (size_t first = run.begin; first < run.end; first += kGroup) {
    for (size_t i = 0; i < kGroupBytes<F>; i += kLineBytes) _mm_prefetch(ahead + i, _MM_HINT_T0);
    ahead += kGroupBytes<F>;
    group.load(run.weight, run.in, first);
    alignas(32) float scales[kRows][kGroup];
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) {
      _mm256_store_ps(scales[r], _mm256_mul_ps(group.scales, _mm256_loadu_ps(x[r].scales + first)));
      if constexpr (kHasOffsets) {
        offsets[r] = _mm256_fmadd_ps(group.offsets, _mm256_loadu_ps(x[r].sums + first), offsets[r]);
      }
    }
    // Not unrolled: the compiler would keep the codes of many blocks at once, in memory.
#pragma GCC unroll 1
    for (size_t pair = 0; pair < group.pairs; ++pair) {
      const typename V::Codes codes =
          V::template widen<F>(group.codes + pair * Group<F>::kPairBytes);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        const int16_t* const inputs = x[r].codes + (first + 2 * pair) * kBlockNumbers;
        V::add_pair(codes, inputs, &scales[r][2 * pair], lanes[r]);
      }
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    Sums& to = sums[r * kOutBlock];
    V::store(to.lanes, lanes[r]);
    if constexpr (kHasOffsets) _mm256_store_ps(to.offsets, offsets[r]);
  }
}

// The run's products with kRows rows from `row` on, for `outs` outputs from its own on.
template <typename V, NumberFormat F, size_t kRows>
void add_outputs(const MatmulArgs& args, size_t row, Run run, size_t outs, Sums* sums) {
  PreparedRow x[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    x[r] = prepared_row(const_cast<void*>(args.prepared), args.in, row + r);
  }
  const size_t bytes = weight_stride(args);
  for (size_t o = 0; o < outs; ++o, run.weight += bytes, run.ahead += bytes) {
    add_run<V, F, kRows>(run, x, sums + o);
  }
}

template <typename V, NumberFormat F>
inline float finish(const Sums& sums) {
  __m256 all = V::sum(V::load(sums.lanes));
  if (F == NumberFormat::kQ4) all = _mm256_add_ps(all, _mm256_load_ps(sums.offsets));
  return sum_lanes(all);
}

// `rows` rows from `row` on, `outs` outputs from `out` on: at most a block of each.
template <typename V, NumberFormat F>
void multiply_tile(const MatmulArgs& args, size_t row, size_t rows, size_t out, size_t outs) {
  const size_t bytes = weight_stride(args), blocks = blocks_of(args.in);
  const char* const weight = static_cast<const char*>(args.weight) + out * bytes;
  // One row alone takes an output's weights as they lie.
  const size_t depth = args.rows == 1 ? blocks : V::kDepthBlocks;
  const size_t outs_ahead = args.rows == 1 ? 2 : kOutBlock;
  Sums sums[kRowBlock][kOutBlock];
  std::memset(sums, 0, rows * sizeof(sums[0]));
  for (size_t begin = 0; begin < blocks; begin += depth) {
    const char* const ahead = weight + outs_ahead * bytes + begin / kGroup * kGroupBytes<F>;
    const Run run{weight, args.in, begin, smaller(begin + depth, blocks), ahead};
    V::take_rows(rows, [&]<size_t kRows>(size_t r) {
      add_outputs<V, F, kRows>(args, row + r, run, outs, sums[r]);
    });
  }
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < outs; ++o) {
      float* const y = args.y + (row + r) * args.y_stride + out + o;
      const float sum = finish<V, F>(sums[r][o]);
      *y = args.accumulate ? *y + sum : sum;
    }
  }
}

template <typename V, NumberFormat F>
void multiply(const MatmulArgs& args, size_t begin, size_t end) {
  for (size_t out = begin; out < end; out += kOutBlock) {
    for (size_t row = 0; row < args.rows; row += kRowBlock) {
      multiply_tile<V, F>(args, row, smaller(kRowBlock, args.rows - row), out,
                          smaller(kOutBlock, end - out));
    }
  }
}

static_assert(kGroup * kBlockNumbers == kSuperblockNumbers);

template <typename V>
void prepare_rows(const MatmulArgs& args, void* prepared, ThreadPool& pool) {
  pool.run(args.rows, grain_for(args.in, 1), [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      prepare_row<V>(args.x + row * args.x_stride, args.in, prepared_row(prepared, args.in, row));
    }
  });
}

template <typename V>
void matmul_compressed_with(const MatmulArgs& args, ThreadPool& pool) {
  const size_t steps_per_out = args.in * args.rows / kBlockNumbers;
  pool.run(args.out, grain_for(steps_per_out, 1), [&](size_t begin, size_t end) {
    switch (args.format) {
      case NumberFormat::kQ8: return multiply<V, NumberFormat::kQ8>(args, begin, end);
      case NumberFormat::kQ4: return multiply<V, NumberFormat::kQ4>(args, begin, end);
      default: return multiply<V, NumberFormat::kNF4>(args, begin, end);
    }
  });
}

}  // namespace
}  // namespace airllm::kernels::avx2

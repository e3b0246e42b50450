// The product with fp8 weights, by AVX2, FMA and F16C. Inputs are taken as they are, in f32.
//
// Recipe, for every row and output: within a block of 128 inputs one accumulator of eight lanes
// takes inputs 8i … 8i+7 by fused multiply-add, i upwards, the last ones of a row filled up with
// zeros; its lanes times the block's scale are added to the row's accumulator, fused, blocks
// upwards. Everything else only chooses when a step is done.
//
// A code becomes f16 by shifts: its exponent and fraction in the places that they have there. What
// that stands for is the code's value / 256.
#include "kernels/compressed.h"
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr float kValuesPerF16 = 256;
constexpr size_t kLinesAhead = 32;  // of each output's codes

// The codes of numbers [0, 8) at `at`, as numbers / 256.
inline __m256 load_codes(const char* at) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  // The sign goes to bit 15 and, with the shift, to bit 14, from where it is taken again.
  const __m128i words = _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), codes), 1);
  return _mm256_cvtph_ps(_mm_and_si128(words, _mm_set1_epi16(static_cast<short>(0xbfff))));
}

// The last `count` < 8 of a row, filled up with zeros.
inline __m256 load_last_codes(const char* at, size_t count) {
  char codes[kLanes] = {};
  std::memcpy(codes, at, count);
  return load_codes(codes);
}
inline __m256 load_last_inputs(const float* at, size_t count) {
  float numbers[kLanes] = {};
  std::memcpy(numbers, at, count * sizeof(float));
  return _mm256_loadu_ps(numbers);
}

// kOuts outputs from `out` on, of kRows rows from `row` on. All loops over both are unrolled: with
// one that is not, the compiler keeps the sums in memory.
template <size_t kRows, size_t kOuts>
void multiply(const MatmulArgs& args, size_t row, size_t out) {
  const size_t bytes = weight_stride(args);
  const char* const weight = static_cast<const char*>(args.weight) + out * bytes;
  const float* const x = args.x + row * args.x_stride;
  __m256 sums[kRows][kOuts];
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t o = 0; o < kOuts; ++o) sums[r][o] = _mm256_setzero_ps();
  }
  const size_t blocks = blocks_of(args.in, kFP8BlockNumbers);
  for (size_t block = 0; block < blocks; ++block) {
    const size_t begin = block * kFP8BlockNumbers;
    const size_t end = smaller(begin + kFP8BlockNumbers, args.in);
    const size_t whole = begin + (end - begin) / kLanes * kLanes;
    __m256 lanes[kRows][kOuts];
#pragma GCC unroll 4
    for (size_t o = 0; o < kOuts; ++o) {
      const char* const ahead = weight + o * bytes + begin + kLinesAhead * kLineBytes;
      _mm_prefetch(ahead, _MM_HINT_T0);
      _mm_prefetch(ahead + kLineBytes, _MM_HINT_T0);
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) lanes[r][o] = _mm256_setzero_ps();
    }
    for (size_t i = begin; i < whole; i += kLanes) {
#pragma GCC unroll 4
      for (size_t o = 0; o < kOuts; ++o) {
        const __m256 numbers = load_codes(weight + o * bytes + i);
#pragma GCC unroll 4
        for (size_t r = 0; r < kRows; ++r) {
          lanes[r][o] =
              _mm256_fmadd_ps(numbers, _mm256_loadu_ps(x + r * args.x_stride + i), lanes[r][o]);
        }
      }
    }
    if (whole < end) {
#pragma GCC unroll 4
      for (size_t o = 0; o < kOuts; ++o) {
        const __m256 numbers = load_last_codes(weight + o * bytes + whole, end - whole);
#pragma GCC unroll 4
        for (size_t r = 0; r < kRows; ++r) {
          const __m256 inputs = load_last_inputs(x + r * args.x_stride + whole, end - whole);
          lanes[r][o] = _mm256_fmadd_ps(numbers, inputs, lanes[r][o]);
        }
      }
    }
#pragma GCC unroll 4
    for (size_t o = 0; o < kOuts; ++o) {
      const char* const scales = fp8_row(weight + o * bytes, args.in).scales;
      const __m256 scale =
          _mm256_set1_ps(load1<NumberFormat::kF32>(scales + block * sizeof(float)) * kValuesPerF16);
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        sums[r][o] = _mm256_fmadd_ps(lanes[r][o], scale, sums[r][o]);
      }
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t o = 0; o < kOuts; ++o) {
      float* const y = args.y + (row + r) * args.y_stride + out + o;
      const float sum = sum_lanes(sums[r][o]);
      *y = args.accumulate ? *y + sum : sum;
    }
  }
}

// All rows of kOuts outputs from `out` on.
template <size_t kOuts>
void multiply_rows(const MatmulArgs& args, size_t out) {
  size_t row = 0;
  if constexpr (kOuts <= 2) {
    for (; row + 3 <= args.rows; row += 3) multiply<3, kOuts>(args, row, out);
    for (; row + 2 <= args.rows; row += 2) multiply<2, kOuts>(args, row, out);
  }
  for (; row < args.rows; ++row) multiply<1, kOuts>(args, row, out);
}

}  // namespace

void matmul_fp8(const MatmulArgs& args, ThreadPool& pool) {
  pool.run(args.out, grain_for(args.in * args.rows / kLanes, 4), [&](size_t begin, size_t end) {
    size_t out = begin;
    if (args.rows == 1) {
      for (; out + 4 <= end; out += 4) multiply_rows<4>(args, out);
    }
    for (; out + 2 <= end; out += 2) multiply_rows<2>(args, out);
    for (; out < end; ++out) multiply_rows<1>(args, out);
  });
}

}  // namespace airllm::kernels::avx2

// The product with fp8 weights, written once for the vectors of AVX2 and of AVX-512: the template
// parameter V is OneOutput or TwoOutputs. Inputs are taken as they are, in f32.
//
// Recipe, for every row and output: within a block of 128 inputs one accumulator of eight lanes
// takes inputs 8i … 8i+7 by fused multiply-add, i upwards, the last ones of a row filled up with
// zeros to sixteen; its lanes times the block's scale are added to the row's accumulator, fused,
// blocks upwards. Everything else only chooses when a step is done.
#pragma once

#include "kernels/compressed.h"
#include "kernels/cpu/avx2_outputs.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr float kValuesPerF16 = 256;  // see V::codes
constexpr size_t kLinesAhead = 32;    // of each output's codes
constexpr size_t kCodesAtOnce = 2 * kLanes;

// The last codes and inputs of a row, filled up with zeros.
template <typename V, size_t kRows, size_t kVectors>
struct LastOfRow {
  char codes[kVectors * V::kOutputs][kCodesAtOnce] = {};
  float inputs[kRows][kCodesAtOnce] = {};

  __attribute__((noinline)) LastOfRow(const char* from_codes, size_t row_bytes, const float* x,
                                      size_t x_stride, size_t count) {
    for (size_t o = 0; o < kVectors * V::kOutputs; ++o) {
      std::memcpy(codes[o], from_codes + o * row_bytes, count);
    }
    for (size_t r = 0; r < kRows; ++r) {
      std::memcpy(inputs[r], x + r * x_stride, count * sizeof(float));
    }
  }
};

// Adds the products of sixteen codes of each output of a vector to the lanes of kRows rows.
template <typename V, size_t kRows>
__attribute__((always_inline)) inline void add_codes(const char* codes, size_t row_bytes,
                                                     const float* x, size_t x_stride,
                                                     typename V::Vector (&lanes)[kRows]) {
  typename V::Vector numbers[2];
  V::codes(codes, row_bytes, numbers);
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    const float* const inputs = x + r * x_stride;
    lanes[r] = V::fused(numbers[0], V::inputs(inputs), lanes[r]);
    lanes[r] = V::fused(numbers[1], V::inputs(inputs + kLanes), lanes[r]);
  }
}

// kVectors vectors of outputs from `out` on, of kRows rows from `row` on. All loops over both are
// unrolled: with one that is not, the compiler keeps the sums in memory.
template <typename V, size_t kRows, size_t kVectors>
void multiply_fp8(const MatmulArgs& args, size_t row, size_t out) {
  const size_t bytes = weight_stride(args);
  const size_t vector_bytes = V::kOutputs * bytes;
  const char* const weight = static_cast<const char*>(args.weight) + out * bytes;
  const float* const x = args.x + row * args.x_stride;
  typename V::Vector sums[kVectors][kRows];
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) sums[v][r] = V::zero();
  }
  const size_t blocks = blocks_of(args.in, kFP8BlockNumbers);
  for (size_t block = 0; block < blocks; ++block) {
    const size_t begin = block * kFP8BlockNumbers;
    const size_t end = smaller(begin + kFP8BlockNumbers, args.in);
    const size_t whole = begin + (end - begin) / kCodesAtOnce * kCodesAtOnce;
    typename V::Vector lanes[kVectors][kRows];
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
#pragma GCC unroll 2
      for (size_t o = 0; o < V::kOutputs; ++o) {
        const char* const ahead =
            weight + v * vector_bytes + o * bytes + begin + kLinesAhead * kLineBytes;
        _mm_prefetch(ahead, _MM_HINT_T0);
        _mm_prefetch(ahead + kLineBytes, _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) lanes[v][r] = V::zero();
    }
    for (size_t i = begin; i < whole; i += kCodesAtOnce) {
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) {
        add_codes<V, kRows>(weight + v * vector_bytes + i, bytes, x + i, args.x_stride, lanes[v]);
      }
    }
    if (whole < end) {
      const LastOfRow<V, kRows, kVectors> last(weight + whole, bytes, x + whole, args.x_stride,
                                               end - whole);
#pragma GCC unroll 4
      for (size_t v = 0; v < kVectors; ++v) {
        add_codes<V, kRows>(last.codes[v * V::kOutputs], kCodesAtOnce, last.inputs[0], kCodesAtOnce,
                            lanes[v]);
      }
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      float scales[V::kOutputs];
#pragma GCC unroll 2
      for (size_t o = 0; o < V::kOutputs; ++o) {
        const char* const row_scales =
            fp8_row(weight + v * vector_bytes + o * bytes, args.in).scales;
        scales[o] = load1<NumberFormat::kF32>(row_scales + block * sizeof(float)) * kValuesPerF16;
      }
      const typename V::Vector scale = V::spread(scales);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) sums[v][r] = V::fused(lanes[v][r], scale, sums[v][r]);
    }
  }
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (size_t o = 0; o < V::kOutputs; ++o) {
        float* const y = args.y + (row + r) * args.y_stride + out + v * V::kOutputs + o;
        const float sum = sum_lanes(V::lanes_of(sums[v][r], o));
        *y = args.accumulate ? *y + sum : sum;
      }
    }
  }
}

// All rows of kVectors vectors of outputs from `out` on.
template <typename V, size_t kVectors>
void multiply_fp8_rows(const MatmulArgs& args, size_t out) {
  V::take_rows(args.rows,
               [&]<size_t kRows>(size_t row) { multiply_fp8<V, kRows, kVectors>(args, row, out); });
}

// One row takes four vectors of outputs at once; more rows take two outputs, which leaves registers
// for as many rows as V takes at once.
template <typename V>
void matmul_fp8_with(const MatmulArgs& args, ThreadPool& pool) {
  constexpr size_t kOuts = 4 * V::kOutputs;
  pool.run(args.out, grain_for(args.in * args.rows / (kLanes * V::kOutputs), kOuts),
           [&](size_t begin, size_t end) {
             size_t out = begin;
             if (args.rows == 1) {
               for (; out + kOuts <= end; out += kOuts) multiply_fp8<V, 1, 4>(args, 0, out);
             }
             for (; out + 2 <= end; out += 2) multiply_fp8_rows<V, 2 / V::kOutputs>(args, out);
             for (; out < end; ++out) multiply_fp8_rows<OneOutput, 1>(args, out);
           });
}

}  // namespace
}  // namespace airllm::kernels::avx2

// The product with weights of the plain formats, written once for the vectors of AVX2 and of
// AVX-512: the template parameter V is OneOutput or TwoOutputs. Two kernels, one recipe.
//
// Recipe, for every row and output: one accumulator of eight lanes takes inputs 8i … 8i+7 by fused
// multiply-add, i upwards; its lanes are summed in a fixed order (sum_lanes); the last in % 8
// inputs follow one by one, fused. Everything else (how many outputs and rows go at once, blocks,
// threads, and how many outputs' lanes a vector has) only chooses when a step is done, so a result
// is the same to the bit however it is cut, and the same of both instruction sets.
//
// A micro-kernel takes 4 outputs, so that its sums, inputs and a weight fill the registers: 3 rows
// of them in the 16 of AVX2, 8 rows in the 32 of AVX-512. One row alone is bound by memory and
// takes 8 outputs, to hide the latency of its additions. Few rows multiply the weights as they lie.
// Many rows are bound by arithmetic: a block of weights is converted to f32 once, into a buffer
// that stays in the nearest caches. Inputs are taken kDepth at a time so that a block of rows stays
// there too; the lanes of unfinished sums wait in memory.
#pragma once

#include "kernels/cpu/avx2_outputs.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr size_t kDepth = 512;     // inputs of a block
constexpr size_t kOutsAtOnce = 4;  // outputs of a micro-kernel
constexpr size_t kOutBlock = 16;   // outputs of a block
constexpr size_t kRowBlock = 96;   // rows of a block: 96 x 512 floats are 192 KiB
constexpr size_t kGroups = kOutBlock / kOutsAtOnce;

// Whether to read the weights where they lie, converting them again for every few rows. Up to 32
// rows that is faster than to convert them into a buffer first (by a quarter on Zen 4 with AVX2,
// f16, 4096 inputs), provided that the inputs stay in a level-2 cache of 512 KiB.
bool are_few_rows(const MatmulArgs& args) {
  return args.rows <= 4 || (args.rows <= 32 && args.rows * args.in <= 131072);
}

void store(const MatmulArgs& args, size_t row, size_t out, float sum) {
  float* y = args.y + row * args.y_stride + out;
  *y = args.accumulate ? *y + sum : sum;
}

// The end of the recipe: the lanes' sum and the inputs from `begin` on.
template <NumberFormat F>
inline float finish(__m256 lanes, const float* x, const char* weight, size_t begin, size_t in) {
  float sum = sum_lanes(lanes);
  for (size_t i = begin; i < in; ++i) {
    sum = fused(load1<F>(weight + i * bytes_per_element(F)), x[i], sum);
  }
  return sum;
}

// kVectors vectors of outputs, from `out` on, of kRows rows, from `row` on.
template <typename V, NumberFormat F, size_t kRows, size_t kVectors>
inline void multiply_in_place(const MatmulArgs& args, size_t row, size_t out) {
  const size_t row_bytes = weight_stride(args);
  const size_t whole = args.in / kLanes * kLanes;
  const char* weight = static_cast<const char*>(args.weight) + out * row_bytes;
  const float* x = args.x + row * args.x_stride;
  typename V::Vector lanes[kRows][kVectors];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) lanes[r][v] = V::zero();
  }
  for (size_t i = 0; i < whole; i += kLanes) {
    typename V::Vector inputs[kRows];
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) inputs[r] = V::inputs(x + r * args.x_stride + i);
#pragma GCC unroll 8
    for (size_t v = 0; v < kVectors; ++v) {
      const char* const at = weight + v * V::kOutputs * row_bytes + i * bytes_per_element(F);
      const typename V::Vector numbers = V::template weights<F>(at, row_bytes);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        lanes[r][v] = V::fused(numbers, inputs[r], lanes[r][v]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t o = 0; o < kVectors * V::kOutputs; ++o) {
      const __m256 sum = V::lanes_of(lanes[r][o / V::kOutputs], o % V::kOutputs);
      store(args, row + r, out + o,
            finish<F>(sum, x + r * args.x_stride, weight + o * row_bytes, whole, args.in));
    }
  }
}

// All rows of kVectors vectors of outputs, from `out` on.
template <typename V, NumberFormat F, size_t kVectors>
void multiply_few_rows_of(const MatmulArgs& args, size_t out) {
  V::take_rows(args.rows, [&]<size_t kRows>(size_t row) {
    multiply_in_place<V, F, kRows, kVectors>(args, row, out);
  });
}

template <typename V, NumberFormat F>
void multiply_few_rows(const MatmulArgs& args, size_t begin, size_t end) {
  size_t out = begin;
  if (args.rows == 1) {
    for (; out + 8 <= end; out += 8) multiply_in_place<V, F, 1, 8 / V::kOutputs>(args, 0, out);
  }
  for (; out + kOutsAtOnce <= end; out += kOutsAtOnce) {
    multiply_few_rows_of<V, F, kOutsAtOnce / V::kOutputs>(args, out);
  }
  for (; out < end; ++out) multiply_few_rows_of<OneOutput, F, 1>(args, out);
}

// What one thread works in; on its stack.
struct alignas(64) Block {
  // f32 weights [group][step of 8 inputs][output of the group][lane].
  float weights[kGroups][kDepth * kOutsAtOnce];
  // Unfinished sums [row][output][lane].
  float lanes[kRowBlock][kOutBlock][kLanes];
};

// Converts inputs [begin, begin + depth) of `outs` outputs from `out` on. The runs are too short
// for the CPU to guess what comes, so the same outputs' next inputs are asked for meanwhile.
template <NumberFormat F>
void pack(const MatmulArgs& args, size_t out, size_t outs, size_t begin, size_t depth,
          Block& block) {
  const size_t row_bytes = weight_stride(args);
  const char* weight =
      static_cast<const char*>(args.weight) + out * row_bytes + begin * bytes_per_element(F);
  for (size_t o = 0; o < outs; ++o) {
    float* packed = block.weights[o / kOutsAtOnce] + o % kOutsAtOnce * kLanes;
    const char* row = weight + o * row_bytes;
    for (size_t i = 0; i < depth; i += kLanes) {
      const char* at = row + i * bytes_per_element(F);
      _mm_prefetch(at + kDepth * bytes_per_element(F), _MM_HINT_T0);
      _mm256_store_ps(packed + i * kOutsAtOnce, load8<F>(at));
    }
  }
}

// Adds `depth` inputs to the lanes of kRows rows x kVectors vectors of outputs.
template <typename V, size_t kRows, size_t kVectors>
inline void multiply_block(const float* packed, size_t depth, const float* x, size_t x_stride,
                           float (*sums)[kOutBlock][kLanes], size_t first_out) {
  typename V::Vector lanes[kRows][kVectors];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) {
      lanes[r][v] = V::load(sums[r][first_out + v * V::kOutputs]);
    }
  }
  for (size_t i = 0; i < depth; i += kLanes) {
    typename V::Vector inputs[kRows];
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) inputs[r] = V::inputs(x + r * x_stride + i);
#pragma GCC unroll 4
    for (size_t v = 0; v < kVectors; ++v) {
      const typename V::Vector weight =
          V::load(packed + i * kOutsAtOnce + v * V::kOutputs * kLanes);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        lanes[r][v] = V::fused(weight, inputs[r], lanes[r][v]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) {
      V::store(sums[r][first_out + v * V::kOutputs], lanes[r][v]);
    }
  }
}

template <typename V, size_t kRows>
void multiply_rows(const Block& block, size_t outs, size_t depth, const float* x, size_t x_stride,
                   float (*sums)[kOutBlock][kLanes]) {
  size_t out = 0;
  for (; out + kOutsAtOnce <= outs; out += kOutsAtOnce) {
    multiply_block<V, kRows, kOutsAtOnce / V::kOutputs>(block.weights[out / kOutsAtOnce], depth, x,
                                                        x_stride, sums, out);
  }
  for (; out < outs; ++out) {
    const float* packed = block.weights[out / kOutsAtOnce] + out % kOutsAtOnce * kLanes;
    multiply_block<OneOutput, kRows, 1>(packed, depth, x, x_stride, sums, out);
  }
}

// `rows` rows from `row` on, `outs` outputs from `out` on: at most a block of each.
template <typename V, NumberFormat F>
void multiply_tile(const MatmulArgs& args, size_t row, size_t rows, size_t out, size_t outs,
                   Block& block) {
  const size_t whole = args.in / kLanes * kLanes;
  const float* x = args.x + row * args.x_stride;
  std::memset(block.lanes, 0, rows * sizeof(block.lanes[0]));
  for (size_t begin = 0; begin < whole; begin += kDepth) {
    const size_t depth = smaller(kDepth, whole - begin);
    pack<F>(args, out, outs, begin, depth, block);
    V::take_rows(rows, [&]<size_t kRows>(size_t r) {
      multiply_rows<V, kRows>(block, outs, depth, x + r * args.x_stride + begin, args.x_stride,
                              block.lanes + r);
    });
  }
  const size_t row_bytes = weight_stride(args);
  const char* weight = static_cast<const char*>(args.weight) + out * row_bytes;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < outs; ++o) {
      const float sum = finish<F>(_mm256_load_ps(block.lanes[r][o]), x + r * args.x_stride,
                                  weight + o * row_bytes, whole, args.in);
      store(args, row + r, out + o, sum);
    }
  }
}

template <typename V, NumberFormat F>
void multiply_many_rows(const MatmulArgs& args, size_t begin, size_t end) {
  Block block;
  for (size_t out = begin; out < end; out += kOutBlock) {
    for (size_t row = 0; row < args.rows; row += kRowBlock) {
      multiply_tile<V, F>(args, row, smaller(kRowBlock, args.rows - row), out,
                          smaller(kOutBlock, end - out), block);
    }
  }
}

template <typename V>
void matmul_plain(const MatmulArgs& args, ThreadPool& pool) {
  with_format(args.format, [&]<NumberFormat F>() {
    const size_t steps_per_out = args.in * args.rows / (kLanes * V::kOutputs);
    if (are_few_rows(args)) {
      pool.run(args.out, grain_for(steps_per_out, 8),
               [&](size_t begin, size_t end) { multiply_few_rows<V, F>(args, begin, end); });
    } else {
      pool.run(args.out, grain_for(steps_per_out, kOutBlock),
               [&](size_t begin, size_t end) { multiply_many_rows<V, F>(args, begin, end); });
    }
  });
}

}  // namespace
}  // namespace airllm::kernels::avx2

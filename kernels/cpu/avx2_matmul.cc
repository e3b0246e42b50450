// The product with AVX2, FMA and F16C. Two kernels, one recipe.
//
// Recipe, for every row and output: one accumulator of eight lanes takes inputs 8i … 8i+7 by fused
// multiply-add, i upwards; its lanes are summed in a fixed order (sum_lanes); the last in % 8
// inputs follow one by one, fused. Everything else (how many outputs and rows go at once, blocks,
// threads) only chooses when a step is done, so a result is the same to the bit however it is cut.
//
// A micro-kernel takes 3 rows x 4 outputs: 12 sums, 3 inputs and 1 weight fill the 16 registers.
// One row alone is bound by memory and takes 8 outputs, to hide the latency of its additions. Few
// rows multiply the weights as they lie. Many rows are bound by arithmetic: a block of weights is
// converted to f32 once, into a buffer that stays in the nearest caches. Inputs are taken kDepth at
// a time so that a block of rows stays there too; the lanes of unfinished sums wait in memory.
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr size_t kDepth = 512;     // inputs of a block
constexpr size_t kOutsAtOnce = 4;  // outputs of a micro-kernel
constexpr size_t kRowsAtOnce = 3;  // rows of a micro-kernel
constexpr size_t kOutBlock = 16;   // outputs of a block
constexpr size_t kRowBlock = 96;   // rows of a block: 96 x 512 floats are 192 KiB
constexpr size_t kGroups = kOutBlock / kOutsAtOnce;

// Whether to read the weights where they lie, converting them again for every 3 rows. Up to 32 rows
// that is faster than to convert them into a buffer first (by a quarter on Zen 4, f16, 4096
// inputs), provided that the inputs stay in a level-2 cache of 512 KiB.
bool are_few_rows(const MatmulArgs& args) {
  return args.rows <= 4 || (args.rows <= 32 && args.rows * args.in <= 131072);
}

// How many of `left` rows go next. Four are two and two: a single row waits for its own additions.
inline size_t rows_of_next_step(size_t left) { return left == 4 ? 2 : smaller(left, kRowsAtOnce); }

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

// kOuts outputs, from `out` on, of kRows rows, from `row` on.
template <NumberFormat F, size_t kRows, size_t kOuts>
inline void multiply_in_place(const MatmulArgs& args, size_t row, size_t out) {
  const size_t row_bytes = weight_stride(args);
  const size_t whole = args.in / kLanes * kLanes;
  const char* weight = static_cast<const char*>(args.weight) + out * row_bytes;
  const float* x = args.x + row * args.x_stride;
  __m256 lanes[kRows][kOuts];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t o = 0; o < kOuts; ++o) lanes[r][o] = _mm256_setzero_ps();
  }
  for (size_t i = 0; i < whole; i += kLanes) {
    __m256 inputs[kRows];
#pragma GCC unroll 3
    for (size_t r = 0; r < kRows; ++r) inputs[r] = _mm256_loadu_ps(x + r * args.x_stride + i);
#pragma GCC unroll 8
    for (size_t o = 0; o < kOuts; ++o) {
      const __m256 numbers = load8<F>(weight + o * row_bytes + i * bytes_per_element(F));
#pragma GCC unroll 3
      for (size_t r = 0; r < kRows; ++r) {
        lanes[r][o] = _mm256_fmadd_ps(numbers, inputs[r], lanes[r][o]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t o = 0; o < kOuts; ++o) {
      store(args, row + r, out + o,
            finish<F>(lanes[r][o], x + r * args.x_stride, weight + o * row_bytes, whole, args.in));
    }
  }
}

// All rows of kOuts outputs, from `out` on.
template <NumberFormat F, size_t kOuts>
void multiply_few_rows_of(const MatmulArgs& args, size_t out) {
  for (size_t row = 0; row < args.rows;) {
    const size_t step = rows_of_next_step(args.rows - row);
    if (step == 3) multiply_in_place<F, 3, kOuts>(args, row, out);
    if (step == 2) multiply_in_place<F, 2, kOuts>(args, row, out);
    if (step == 1) multiply_in_place<F, 1, kOuts>(args, row, out);
    row += step;
  }
}

template <NumberFormat F>
void multiply_few_rows(const MatmulArgs& args, size_t begin, size_t end) {
  size_t out = begin;
  if (args.rows == 1) {
    for (; out + 8 <= end; out += 8) multiply_in_place<F, 1, 8>(args, 0, out);
  }
  for (; out + kOutsAtOnce <= end; out += kOutsAtOnce) {
    multiply_few_rows_of<F, kOutsAtOnce>(args, out);
  }
  for (; out < end; ++out) multiply_few_rows_of<F, 1>(args, out);
}

// What one thread works in; on its stack.
struct alignas(32) Block {
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

// Adds `depth` inputs to the lanes of kRows rows x kOuts outputs.
template <size_t kRows, size_t kOuts>
inline void multiply_block(const float* packed, size_t depth, const float* x, size_t x_stride,
                           float (*sums)[kOutBlock][kLanes], size_t first_out) {
  __m256 lanes[kRows][kOuts];
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t o = 0; o < kOuts; ++o) lanes[r][o] = _mm256_load_ps(sums[r][first_out + o]);
  }
  for (size_t i = 0; i < depth; i += kLanes) {
    __m256 inputs[kRows];
#pragma GCC unroll 3
    for (size_t r = 0; r < kRows; ++r) inputs[r] = _mm256_loadu_ps(x + r * x_stride + i);
#pragma GCC unroll 4
    for (size_t o = 0; o < kOuts; ++o) {
      const __m256 weight = _mm256_load_ps(packed + i * kOutsAtOnce + o * kLanes);
#pragma GCC unroll 3
      for (size_t r = 0; r < kRows; ++r) {
        lanes[r][o] = _mm256_fmadd_ps(weight, inputs[r], lanes[r][o]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t o = 0; o < kOuts; ++o) _mm256_store_ps(sums[r][first_out + o], lanes[r][o]);
  }
}

template <size_t kRows>
void multiply_rows(const Block& block, size_t outs, size_t depth, const float* x, size_t x_stride,
                   float (*sums)[kOutBlock][kLanes]) {
  size_t out = 0;
  for (; out + kOutsAtOnce <= outs; out += kOutsAtOnce) {
    multiply_block<kRows, kOutsAtOnce>(block.weights[out / kOutsAtOnce], depth, x, x_stride, sums,
                                       out);
  }
  for (; out < outs; ++out) {
    const float* packed = block.weights[out / kOutsAtOnce] + out % kOutsAtOnce * kLanes;
    multiply_block<kRows, 1>(packed, depth, x, x_stride, sums, out);
  }
}

// `rows` rows from `row` on, `outs` outputs from `out` on: at most a block of each.
template <NumberFormat F>
void multiply_tile(const MatmulArgs& args, size_t row, size_t rows, size_t out, size_t outs,
                   Block& block) {
  const size_t whole = args.in / kLanes * kLanes;
  const float* x = args.x + row * args.x_stride;
  std::memset(block.lanes, 0, rows * sizeof(block.lanes[0]));
  for (size_t begin = 0; begin < whole; begin += kDepth) {
    const size_t depth = smaller(kDepth, whole - begin);
    pack<F>(args, out, outs, begin, depth, block);
    for (size_t r = 0; r < rows;) {
      const size_t step = rows_of_next_step(rows - r);
      const float* inputs = x + r * args.x_stride + begin;
      float(*sums)[kOutBlock][kLanes] = block.lanes + r;
      if (step == 3) multiply_rows<3>(block, outs, depth, inputs, args.x_stride, sums);
      if (step == 2) multiply_rows<2>(block, outs, depth, inputs, args.x_stride, sums);
      if (step == 1) multiply_rows<1>(block, outs, depth, inputs, args.x_stride, sums);
      r += step;
    }
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

template <NumberFormat F>
void multiply_many_rows(const MatmulArgs& args, size_t begin, size_t end) {
  Block block;
  for (size_t out = begin; out < end; out += kOutBlock) {
    for (size_t row = 0; row < args.rows; row += kRowBlock) {
      multiply_tile<F>(args, row, smaller(kRowBlock, args.rows - row), out,
                       smaller(kOutBlock, end - out), block);
    }
  }
}

}  // namespace

void matmul(const MatmulArgs& args, ThreadPool& pool) {
  if (args.format == NumberFormat::kFP8) return matmul_fp8(args, pool);
  if (is_compressed(args.format)) return matmul_compressed(args, pool);
  with_format(args.format, [&]<NumberFormat F>() {
    const size_t steps_per_out = args.in * args.rows / kLanes;
    if (are_few_rows(args)) {
      pool.run(args.out, grain_for(steps_per_out, 8),
               [&](size_t begin, size_t end) { multiply_few_rows<F>(args, begin, end); });
    } else {
      pool.run(args.out, grain_for(steps_per_out, kOutBlock),
               [&](size_t begin, size_t end) { multiply_many_rows<F>(args, begin, end); });
    }
  });
}

// A number's sum is the same wherever it lies in a vector: one fused step after the other.
void matmul_transposed(const MatmulArgs& args, ThreadPool& pool) {
  if (is_compressed(args.format)) return scalar::matmul_transposed(args, pool);
  with_format(args.format, [&]<NumberFormat F>() {
    constexpr size_t kSize = bytes_per_element(F);
    const char* weight = static_cast<const char*>(args.weight);
    pool.run(args.rows * args.in, grain_for(args.out / 4 + 1, kLanes),
             [&](size_t begin, size_t end) {
               for_each_row(begin, end, args.in, [&](size_t row, size_t first, size_t last) {
                 const float* x = args.x + row * args.x_stride;
                 float* y = args.y + row * args.y_stride;
                 size_t i = first;
                 for (; i + kLanes <= last; i += kLanes) {
                   __m256 sum = _mm256_loadu_ps(y + i);
                   for (size_t o = 0; o < args.out; ++o) {
                     const __m256 numbers = load8<F>(weight + (o * args.in + i) * kSize);
                     sum = _mm256_fmadd_ps(_mm256_set1_ps(x[o]), numbers, sum);
                   }
                   _mm256_storeu_ps(y + i, sum);
                 }
                 for (; i < last; ++i) {
                   for (size_t o = 0; o < args.out; ++o) {
                     y[i] = fused(x[o], load1<F>(weight + (o * args.in + i) * kSize), y[i]);
                   }
                 }
               });
             });
  });
}

}  // namespace airllm::kernels::avx2

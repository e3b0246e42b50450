// The reference product: each sum runs over the inputs in order.
#include <array>

#include "kernels/compressed.h"
#include "kernels/convert.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::scalar {
namespace {

template <NumberFormat F>
float dot(const float* x, const void* weight, size_t in) {
  float sum = 0;
  for (size_t i = 0; i < in; ++i) sum += x[i] * load<F>(weight, i);
  return sum;
}

float dot_compressed(NumberFormat format, const float* x, const char* weight, size_t in) {
  std::array<float, kBlockNumbers> storage;
  float sum = 0;
  for (size_t b = 0; b < blocks_of(in); ++b) {
    const std::span<const float> numbers = expand_block(format, weight, in, b, storage);
    for (size_t i = 0; i < numbers.size(); ++i) sum += x[b * kBlockNumbers + i] * numbers[i];
  }
  return sum;
}

// `dot(x, weight)` for rows of both.
template <typename Dot>
void multiply_outputs(const MatmulArgs& args, size_t begin, size_t end, const Dot& dot) {
  const size_t bytes = weight_stride(args);
  for (size_t o = begin; o < end; ++o) {
    const char* weight = static_cast<const char*>(args.weight) + o * bytes;
    for (size_t r = 0; r < args.rows; ++r) {
      const float sum = dot(args.x + r * args.x_stride, weight);
      float& y = args.y[r * args.y_stride + o];
      y = args.accumulate ? y + sum : sum;
    }
  }
}

// The numbers of one block of every weight row, for all rows of y.
void add_compressed_block(const MatmulArgs& args, size_t block) {
  std::array<float, kBlockNumbers> storage;
  const size_t bytes = row_bytes(args.format, args.in);
  for (size_t o = 0; o < args.out; ++o) {
    const char* const weight = static_cast<const char*>(args.weight) + o * bytes;
    const std::span<const float> numbers =
        expand_block(args.format, weight, args.in, block, storage);
    for (size_t r = 0; r < args.rows; ++r) {
      const float x = args.x[r * args.x_stride + o];
      float* const y = args.y + r * args.y_stride + block * kBlockNumbers;
      for (size_t i = 0; i < numbers.size(); ++i) y[i] += x * numbers[i];
    }
  }
}

}  // namespace

void matmul(const MatmulArgs& args, ThreadPool& pool) {
  const size_t grain = grain_for(args.in * args.rows, 1);
  if (is_compressed(args.format)) {
    pool.run(args.out, grain, [&](size_t begin, size_t end) {
      multiply_outputs(args, begin, end, [&](const float* x, const char* weight) {
        return dot_compressed(args.format, x, weight, args.in);
      });
    });
    return;
  }
  with_format(args.format, [&]<NumberFormat F>() {
    pool.run(args.out, grain, [&](size_t begin, size_t end) {
      multiply_outputs(args, begin, end, [&](const float* x, const char* weight) {
        return dot<F>(x, weight, args.in);
      });
    });
  });
}

size_t prepared_bytes(size_t) { return 0; }

void prepare(const MatmulArgs&, void*, ThreadPool&) {}

void matmul_transposed(const MatmulArgs& args, ThreadPool& pool) {
  if (is_compressed(args.format)) {
    const size_t steps = args.rows * args.out * kBlockNumbers;
    pool.run(blocks_of(args.in), grain_for(steps, 1), [&](size_t begin, size_t end) {
      for (size_t block = begin; block < end; ++block) add_compressed_block(args, block);
    });
    return;
  }
  with_format(args.format, [&]<NumberFormat F>() {
    pool.run(args.rows * args.in, grain_for(args.out, 1), [&](size_t begin, size_t end) {
      for_each_row(begin, end, args.in, [&](size_t row, size_t first, size_t last) {
        for (size_t o = 0; o < args.out; ++o) {
          const float x = args.x[row * args.x_stride + o];
          for (size_t i = first; i < last; ++i) {
            args.y[row * args.y_stride + i] += x * load<F>(args.weight, o * args.in + i);
          }
        }
      });
    });
  });
}

}  // namespace airllm::kernels::scalar

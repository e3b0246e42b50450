// The reference product: each sum runs over the inputs in order.
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

template <NumberFormat F>
void multiply_outputs(const MatmulArgs& args, size_t begin, size_t end) {
  const size_t row_bytes = args.in * bytes_per_element(F);
  for (size_t o = begin; o < end; ++o) {
    const char* weight = static_cast<const char*>(args.weight) + o * row_bytes;
    for (size_t r = 0; r < args.rows; ++r) {
      const float sum = dot<F>(args.x + r * args.x_stride, weight, args.in);
      float& y = args.y[r * args.y_stride + o];
      y = args.accumulate ? y + sum : sum;
    }
  }
}

}  // namespace

void matmul(const MatmulArgs& args, ThreadPool& pool) {
  with_format(args.format, [&]<NumberFormat F>() {
    pool.run(args.out, grain_for(args.in * args.rows, 1),
             [&](size_t begin, size_t end) { multiply_outputs<F>(args, begin, end); });
  });
}

void matmul_transposed(const MatmulArgs& args, ThreadPool& pool) {
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

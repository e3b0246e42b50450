// The reference of all that touches each number once or twice.
#include <cmath>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/scalar_convert.h"

namespace airllm::kernels::scalar {
namespace {

template <NumberFormat F>
void normalize_row(const float* x, const void* weight, float* y, size_t width, float epsilon) {
  float squares = 0;
  for (size_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon);
  for (size_t i = 0; i < width; ++i) y[i] = x[i] * inverse * load<F>(weight, i);
}

void rotate_row(const RopeArgs& args, size_t row) {
  const size_t half = args.rotary_dim / 2;
  const float position = static_cast<float>(args.positions[row]);
  for (size_t i = 0; i < half; ++i) {
    const float angle = position * args.inverse_frequencies[i];
    const float cosine = std::cos(angle) * args.scale;
    const float sine = std::sin(angle) * args.scale;
    for (size_t h = 0; h < args.heads; ++h) {
      float* x = args.x + row * args.x_stride + h * args.head_dim;
      const float first = x[i], second = x[i + half];
      x[i] = first * cosine - second * sine;
      x[i + half] = second * cosine + first * sine;
    }
  }
}

}  // namespace

void rms_norm(const RmsNormArgs& args, ThreadPool& pool) {
  with_format(args.format, [&]<NumberFormat F>() {
    pool.run(args.rows, grain_for(args.width, 1), [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        normalize_row<F>(args.x + r * args.width, args.weight, args.y + r * args.width, args.width,
                         args.epsilon);
      }
    });
  });
}

void rope(const RopeArgs& args, ThreadPool& pool) {
  pool.run(args.rows, grain_for(args.heads * args.rotary_dim, 1), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) rotate_row(args, r);
  });
}

void silu_multiply(float* gate, const float* up, size_t count, ThreadPool& pool) {
  pool.run(count, grain_for(8, 1), [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  });
}

void add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
              size_t width, ThreadPool& pool) {
  with_format(format, [&]<NumberFormat F>() {
    pool.run(rows, grain_for(width, 1), [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        for (size_t i = 0; i < width; ++i) x[r * x_stride + i] += load<F>(bias, i);
      }
    });
  });
}

void to_f32(const void* in, NumberFormat format, float* out, size_t count) {
  with_format(format, [&]<NumberFormat F>() {
    for (size_t i = 0; i < count; ++i) out[i] = load<F>(in, i);
  });
}

}  // namespace airllm::kernels::scalar

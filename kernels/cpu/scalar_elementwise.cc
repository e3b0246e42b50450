// The reference of all that touches each number once or twice.
#include <cmath>
#include <cstring>

#include "kernels/compressed.h"
#include "kernels/convert.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::scalar {
namespace {

template <NumberFormat F>
void normalize(const NormArgs& args, const float* x, float* y) {
  const auto width = static_cast<float>(args.width);
  float mean = 0;
  if (args.kind == NormArgs::Kind::kLayer) {
    for (size_t i = 0; i < args.width; ++i) mean += x[i];
    mean /= width;
  }
  float squares = 0;
  for (size_t i = 0; i < args.width; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float inverse = 1.0f / std::sqrt(squares / width + args.epsilon);
  for (size_t i = 0; i < args.width; ++i) {
    y[i] = (x[i] - mean) * inverse;
    if (args.weight != nullptr) y[i] *= load<F>(args.weight, i) + args.weight_offset;
  }
}

void rotate_row(const RopeArgs& args, size_t row) {
  const size_t half = args.rotary_dim / 2;
  const size_t step = args.interleaved ? 2 : 1, apart = args.interleaved ? 1 : half;
  const float position = static_cast<float>(args.positions[row]);
  for (size_t i = 0; i < half; ++i) {
    const float angle = position * args.inverse_frequencies[i];
    const float cosine = std::cos(angle) * args.scale;
    const float sine = std::sin(angle) * args.scale;
    for (size_t h = 0; h < args.heads; ++h) {
      float* x = args.x + row * args.x_stride + h * args.head_dim + i * step;
      const float first = x[0], second = x[apart];
      x[0] = first * cosine - second * sine;
      x[apart] = second * cosine + first * sine;
    }
  }
}

float apply(const MapArgs& args, float x) {
  switch (args.function) {
    case Function::kSilu: return x / (1 + std::exp(-x));
    case Function::kGelu: return 0.5f * x * (1 + std::erf(x * 0.70710678118654752f));
    case Function::kGeluTanh: {
      const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      return x / (1 + std::exp(-2 * inner));  // 1 + tanh(z) = 2 / (1 + exp(-2 z))
    }
    case Function::kRelu: return x < 0 ? 0 : x;
    case Function::kReluSquared: return x < 0 ? 0 : x * x;
    case Function::kXielu:
      if (x > 0) return args.a * x * x + args.c * x;
      return (std::expm1(x < args.d ? x : args.d) - x) * args.b + args.c * x;
    case Function::kScale: return args.a * x;
    case Function::kClamp: return x < -args.a ? -args.a : x > args.a ? args.a : x;
    case Function::kSoftCap: return args.a * std::tanh(x / args.a);
  }
  return x;
}

}  // namespace

void norm(const NormArgs& args, ThreadPool& pool) {
  with_format(args.format, [&]<NumberFormat F>() {
    pool.run(args.rows, grain_for(args.groups * args.width, 1), [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        for (size_t g = 0; g < args.groups; ++g) {
          normalize<F>(args, args.x + r * args.x_stride + g * args.width,
                       args.y + r * args.y_stride + g * args.width);
        }
      }
    });
  });
}

void rope(const RopeArgs& args, ThreadPool& pool) {
  pool.run(args.rows, grain_for(args.heads * args.rotary_dim, 1), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) rotate_row(args, r);
  });
}

void map(const MapArgs& args, ThreadPool& pool) {
  pool.run(args.rows * args.width, grain_for(8, 1), [&](size_t begin, size_t end) {
    for_each_row(begin, end, args.width, [&](size_t row, size_t first, size_t last) {
      float* x = args.x + row * args.x_stride;
      for (size_t i = first; i < last; ++i) {
        x[i] = apply(args, x[i]);
        if (args.factor != nullptr) x[i] *= args.factor[row * args.factor_stride + i];
      }
    });
  });
}

void add(const AddArgs& args, ThreadPool& pool) {
  pool.run(args.rows * args.width, grain_for(1, 1), [&](size_t begin, size_t end) {
    for_each_row(begin, end, args.width, [&](size_t row, size_t first, size_t last) {
      const float* x = args.x + row * args.x_stride;
      float* y = args.y + row * args.y_stride;
      for (size_t i = first; i < last; ++i) y[i] += args.factor * x[i];
    });
  });
}

void copy(const CopyArgs& args, ThreadPool& pool) {
  const size_t bytes = args.width * sizeof(float);
  pool.run(args.rows, grain_for(args.width, 1), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      float* const y = args.y + r * args.y_stride;
      const size_t from = args.index != nullptr ? args.index[r] : r;
      if (args.x == nullptr) {
        std::memset(y, 0, bytes);
      } else {
        std::memcpy(y, args.x + from * args.x_stride, bytes);
      }
    }
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
  if (is_compressed(format)) return expand_row(format, static_cast<const char*>(in), {out, count});
  with_format(format, [&]<NumberFormat F>() {
    for (size_t i = 0; i < count; ++i) out[i] = load<F>(in, i);
  });
}

uint64_t burn(uint64_t rounds) {
  constexpr size_t kSums = 8;
  float sums[kSums] = {};
  for (uint64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * 0.75f + 0.75f;
  }
  volatile float kept = 0;
  for (const float sum : sums) kept = kept + sum;
  return rounds * kSums * 2;
}

}  // namespace airllm::kernels::scalar

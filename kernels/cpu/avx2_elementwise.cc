// What touches each number once or twice, with AVX2. A number's result never depends on where in a
// vector it falls: remainders go through the same instructions, in a padded vector or one by one.
#include <cmath>

#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

template <NumberFormat F>
void normalize_row(const float* x, const char* weight, float* y, size_t width, float epsilon) {
  constexpr size_t kSize = bytes_per_element(F);
  const size_t whole = width / kLanes * kLanes;
  __m256 lanes = _mm256_setzero_ps();
  for (size_t i = 0; i < whole; i += kLanes) {
    const __m256 numbers = _mm256_loadu_ps(x + i);
    lanes = _mm256_fmadd_ps(numbers, numbers, lanes);
  }
  float squares = sum_lanes(lanes);
  for (size_t i = whole; i < width; ++i) squares = fused(x[i], x[i], squares);

  const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + epsilon);
  const __m256 inverses = _mm256_set1_ps(inverse);
  for (size_t i = 0; i < whole; i += kLanes) {
    const __m256 normal = _mm256_mul_ps(_mm256_loadu_ps(x + i), inverses);
    _mm256_storeu_ps(y + i, _mm256_mul_ps(normal, load8<F>(weight + i * kSize)));
  }
  for (size_t i = whole; i < width; ++i) y[i] = x[i] * inverse * load1<F>(weight + i * kSize);
}

// Rotates `pairs` pairs (first[i], second[i]) by the angles given.
void rotate(float* first, float* second, const float* cosines, const float* sines, size_t pairs) {
  size_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const __m256 a = _mm256_loadu_ps(first + i), b = _mm256_loadu_ps(second + i);
    const __m256 cosine = _mm256_loadu_ps(cosines + i), sine = _mm256_loadu_ps(sines + i);
    _mm256_storeu_ps(first + i, _mm256_sub_ps(_mm256_mul_ps(a, cosine), _mm256_mul_ps(b, sine)));
    _mm256_storeu_ps(second + i, _mm256_add_ps(_mm256_mul_ps(b, cosine), _mm256_mul_ps(a, sine)));
  }
  for (; i < pairs; ++i) {
    const float a = first[i], b = second[i];
    first[i] = a * cosines[i] - b * sines[i];
    second[i] = b * cosines[i] + a * sines[i];
  }
}

// Sines and cosines are made once for all heads, in blocks that fit the stack.
void rotate_row(const RopeArgs& args, size_t row) {
  constexpr size_t kPairs = 64;
  float cosines[kPairs], sines[kPairs];
  const size_t half = args.rotary_dim / 2;
  const float position = static_cast<float>(args.positions[row]);
  for (size_t begin = 0; begin < half; begin += kPairs) {
    const size_t pairs = half - begin < kPairs ? half - begin : kPairs;
    for (size_t i = 0; i < pairs; ++i) {
      const float angle = position * args.inverse_frequencies[begin + i];
      cosines[i] = __builtin_cosf(angle) * args.scale;
      sines[i] = __builtin_sinf(angle) * args.scale;
    }
    for (size_t h = 0; h < args.heads; ++h) {
      float* x = args.x + row * args.x_stride + h * args.head_dim + begin;
      rotate(x, x + half, cosines, sines, pairs);
    }
  }
}

// silu(gate) * up
inline __m256 gated(__m256 gate, __m256 up) {
  const __m256 negative = _mm256_sub_ps(_mm256_setzero_ps(), gate);
  const __m256 divisor = _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negative));
  return _mm256_mul_ps(_mm256_div_ps(gate, divisor), up);
}

void silu_multiply_range(float* gate, const float* up, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    _mm256_storeu_ps(gate + i, gated(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  }
  if (i == count) return;
  const size_t bytes = (count - i) * sizeof(float);
  alignas(32) float last_gate[kLanes] = {};
  alignas(32) float last_up[kLanes] = {};
  std::memcpy(last_gate, gate + i, bytes);
  std::memcpy(last_up, up + i, bytes);
  _mm256_store_ps(last_gate, gated(_mm256_load_ps(last_gate), _mm256_load_ps(last_up)));
  std::memcpy(gate + i, last_gate, bytes);
}

template <NumberFormat F>
void add_bias_to_row(float* x, const char* bias, size_t width) {
  constexpr size_t kSize = bytes_per_element(F);
  size_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), load8<F>(bias + i * kSize)));
  }
  for (; i < width; ++i) x[i] += load1<F>(bias + i * kSize);
}

template <NumberFormat F>
void convert(const char* in, float* out, size_t count) {
  constexpr size_t kSize = bytes_per_element(F);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) _mm256_storeu_ps(out + i, load8<F>(in + i * kSize));
  for (; i < count; ++i) out[i] = load1<F>(in + i * kSize);
}

}  // namespace

void rms_norm(const RmsNormArgs& args, ThreadPool& pool) {
  with_format(args.format, [&]<NumberFormat F>() {
    pool.run(args.rows, grain_for(args.width / 4, 1), [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        normalize_row<F>(args.x + r * args.width, static_cast<const char*>(args.weight),
                         args.y + r * args.width, args.width, args.epsilon);
      }
    });
  });
}

void rope(const RopeArgs& args, ThreadPool& pool) {
  // A sine or cosine takes as long as some 20 vectors.
  const size_t steps = args.rotary_dim * (20 + args.heads / kLanes);
  pool.run(args.rows, grain_for(steps, 1), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) rotate_row(args, r);
  });
}

void silu_multiply(float* gate, const float* up, size_t count, ThreadPool& pool) {
  pool.run(count, grain_for(2, kLanes), [&](size_t begin, size_t end) {
    silu_multiply_range(gate + begin, up + begin, end - begin);
  });
}

void add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
              size_t width, ThreadPool& pool) {
  with_format(format, [&]<NumberFormat F>() {
    pool.run(rows, grain_for(width / kLanes, 1), [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        add_bias_to_row<F>(x + r * x_stride, static_cast<const char*>(bias), width);
      }
    });
  });
}

void to_f32(const void* in, NumberFormat format, float* out, size_t count) {
  with_format(format,
              [&]<NumberFormat F>() { convert<F>(static_cast<const char*>(in), out, count); });
}

}  // namespace airllm::kernels::avx2

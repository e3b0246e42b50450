// What touches each number once or twice, with AVX2. A number's result never depends on where in a
// vector it falls: remainders go through the same instructions, in a padded vector or one by one.
#include <cmath>

#include "kernels/cpu/avx2_outputs.h"
#include "kernels/cpu/burn.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

// The sum of f(x[i]), f on eight numbers at a time; the rest follow one by one.
template <typename Vector, typename Number>
inline float sum_of(const float* x, size_t width, const Vector& vector, const Number& number) {
  const size_t whole = width / kLanes * kLanes;
  __m256 lanes = _mm256_setzero_ps();
  for (size_t i = 0; i < whole; i += kLanes) lanes = vector(_mm256_loadu_ps(x + i), lanes);
  float sum = sum_lanes(lanes);
  for (size_t i = whole; i < width; ++i) sum = number(x[i], sum);
  return sum;
}

float mean_of(const float* x, size_t width) {
  const float sum = sum_of(
      x, width, [](__m256 v, __m256 lanes) { return _mm256_add_ps(v, lanes); },
      [](float v, float partial) { return v + partial; });
  return sum / static_cast<float>(width);
}

// 1 / sqrt(variance + epsilon)
float inverse_deviation(const float* x, size_t width, float mean, float epsilon) {
  const __m256 means = _mm256_set1_ps(mean);
  const float squares = sum_of(
      x, width,
      [&](__m256 v, __m256 lanes) {
        const __m256 from_mean = _mm256_sub_ps(v, means);
        return _mm256_fmadd_ps(from_mean, from_mean, lanes);
      },
      [&](float v, float partial) { return fused(v - mean, v - mean, partial); });
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + epsilon);
}

template <NumberFormat F>
void normalize(const NormArgs& args, const float* x, float* y) {
  constexpr size_t kSize = bytes_per_element(F);
  const size_t whole = args.width / kLanes * kLanes;
  const char* weight = static_cast<const char*>(args.weight);
  const float mean = args.kind == NormArgs::Kind::kLayer ? mean_of(x, args.width) : 0;
  const float inverse = inverse_deviation(x, args.width, mean, args.epsilon);
  const __m256 means = _mm256_set1_ps(mean), inverses = _mm256_set1_ps(inverse);
  const __m256 offsets = _mm256_set1_ps(args.weight_offset);
  for (size_t i = 0; i < whole; i += kLanes) {
    __m256 normal = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), means), inverses);
    if (weight != nullptr) {
      normal = _mm256_mul_ps(normal, _mm256_add_ps(load8<F>(weight + i * kSize), offsets));
    }
    _mm256_storeu_ps(y + i, normal);
  }
  for (size_t i = whole; i < args.width; ++i) {
    y[i] = (x[i] - mean) * inverse;
    if (weight != nullptr) y[i] *= load1<F>(weight + i * kSize) + args.weight_offset;
  }
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

// The same of pairs (x[2 i], x[2 i + 1]).
void rotate_neighbours(float* x, const float* cosines, const float* sines, size_t pairs) {
  for (size_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cosines[i] - b * sines[i];
    x[2 * i + 1] = b * cosines[i] + a * sines[i];
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
      float* x = args.x + row * args.x_stride + h * args.head_dim;
      if (args.interleaved) {
        rotate_neighbours(x + 2 * begin, cosines, sines, pairs);
      } else {
        rotate(x + begin, x + begin + half, cosines, sines, pairs);
      }
    }
  }
}

// x / (1 + exp(-z))
inline __m256 over_1_plus_exp(__m256 x, __m256 z) {
  const __m256 negative = _mm256_sub_ps(_mm256_setzero_ps(), z);
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negative)));
}

inline __m256 gelu_tanh(__m256 x) {
  const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
  const __m256 inner = _mm256_fmadd_ps(_mm256_set1_ps(0.044715f), cube, x);
  // 1 + tanh(z) = 2 / (1 + exp(-2 z)), z = sqrt(2 / pi) * inner
  return over_1_plus_exp(x, _mm256_mul_ps(_mm256_set1_ps(2 * 0.79788456080286536f), inner));
}

inline float gelu(float x) { return 0.5f * x * (1 + __builtin_erff(x * 0.70710678118654752f)); }

inline float xielu(const MapArgs& args, float x) {
  if (x > 0) return args.a * x * x + args.c * x;
  return (__builtin_expm1f(x < args.d ? x : args.d) - x) * args.b + args.c * x;
}

// For what the C library has for one number alone.
template <typename One>
inline __m256 one_by_one(__m256 x, const One& one) {
  alignas(32) float numbers[kLanes];
  _mm256_store_ps(numbers, x);
  for (float& number : numbers) number = one(number);
  return _mm256_load_ps(numbers);
}

// The bounds are the first operands, so that a NaN stays one.
inline __m256 apply(const MapArgs& args, __m256 x) {
  const __m256 a = _mm256_set1_ps(args.a), zero = _mm256_setzero_ps();
  switch (args.function) {
    case Function::kSilu: return over_1_plus_exp(x, x);
    case Function::kGelu: return one_by_one(x, gelu);
    case Function::kGeluTanh: return gelu_tanh(x);
    case Function::kRelu: return _mm256_max_ps(zero, x);
    case Function::kReluSquared: {
      const __m256 positive = _mm256_max_ps(zero, x);
      return _mm256_mul_ps(positive, positive);
    }
    case Function::kXielu: return one_by_one(x, [&](float number) { return xielu(args, number); });
    case Function::kScale: return _mm256_mul_ps(a, x);
    case Function::kClamp: return _mm256_min_ps(a, _mm256_max_ps(_mm256_sub_ps(zero, a), x));
    case Function::kSoftCap: return _mm256_mul_ps(a, tanh8(_mm256_div_ps(x, a)));
  }
  return x;
}

// The last vector is padded, so that every number goes the same way.
void map_range(const MapArgs& args, float* x, const float* factor, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __m256 y = apply(args, _mm256_loadu_ps(x + i));
    if (factor != nullptr) y = _mm256_mul_ps(y, _mm256_loadu_ps(factor + i));
    _mm256_storeu_ps(x + i, y);
  }
  if (i == count) return;
  const size_t bytes = (count - i) * sizeof(float);
  alignas(32) float last[kLanes] = {};
  alignas(32) float last_factor[kLanes] = {};
  std::memcpy(last, x + i, bytes);
  if (factor != nullptr) std::memcpy(last_factor, factor + i, bytes);
  __m256 y = apply(args, _mm256_load_ps(last));
  if (factor != nullptr) y = _mm256_mul_ps(y, _mm256_load_ps(last_factor));
  _mm256_store_ps(last, y);
  std::memcpy(x + i, last, bytes);
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

void norm(const NormArgs& args, ThreadPool& pool) {
  with_format(args.format, [&]<NumberFormat F>() {
    const size_t steps = args.groups * (args.width / 4 + 1);
    pool.run(args.rows, grain_for(steps, 1), [&](size_t begin, size_t end) {
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
  // A sine or cosine takes as long as some 20 vectors.
  const size_t steps = args.rotary_dim * (20 + args.heads / kLanes);
  pool.run(args.rows, grain_for(steps, 1), [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) rotate_row(args, r);
  });
}

void map(const MapArgs& args, ThreadPool& pool) {
  pool.run(args.rows * args.width, grain_for(2, kLanes), [&](size_t begin, size_t end) {
    for_each_row(begin, end, args.width, [&](size_t row, size_t first, size_t last) {
      const float* factor =
          args.factor == nullptr ? nullptr : args.factor + row * args.factor_stride + first;
      map_range(args, args.x + row * args.x_stride + first, factor, last - first);
    });
  });
}

void add(const AddArgs& args, ThreadPool& pool) {
  const __m256 factors = _mm256_set1_ps(args.factor);
  pool.run(args.rows * args.width, grain_for(1, kLanes), [&](size_t begin, size_t end) {
    for_each_row(begin, end, args.width, [&](size_t row, size_t first, size_t last) {
      const float* x = args.x + row * args.x_stride;
      float* y = args.y + row * args.y_stride;
      size_t i = first;
      for (; i + kLanes <= last; i += kLanes) {
        const __m256 sum = _mm256_fmadd_ps(factors, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i));
        _mm256_storeu_ps(y + i, sum);
      }
      for (; i < last; ++i) y[i] = fused(args.factor, x[i], y[i]);
    });
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
  if (is_compressed(format)) return scalar::to_f32(in, format, out, count);
  with_format(format,
              [&]<NumberFormat F>() { convert<F>(static_cast<const char*>(in), out, count); });
}

uint64_t burn(uint64_t rounds) { return burn_with<OneOutput>(rounds); }

}  // namespace airllm::kernels::avx2

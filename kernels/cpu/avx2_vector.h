// Eight floats at a time: loads of every format, sums, and the exponential. Only for files compiled
// with AVX2, FMA and F16C; all is static, for the reason given in operations.h.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/number_format.h"

namespace airllm::kernels::avx2 {

inline constexpr size_t kLanes = 8;
inline constexpr size_t kLineBytes = 64;  // of the caches

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// Numbers [0, 8) at `at`, which need not be aligned.
template <NumberFormat F>
static inline __m256 load8(const char* at) {
  if constexpr (F == NumberFormat::kF32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  } else {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    if constexpr (F == NumberFormat::kF16) {
      return _mm256_cvtph_ps(halves);
    } else {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
    }
  }
}

// The number at `at`, by the same conversion.
template <NumberFormat F>
static inline float load1(const char* at) {
  if constexpr (F == NumberFormat::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  } else {
    uint16_t half;
    std::memcpy(&half, at, sizeof(half));
    if constexpr (F == NumberFormat::kF16) return _cvtsh_ss(half);
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(half << 16)));
  }
}

// a * b + c in one rounding.
static inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// The sum of the lanes, always in this order: ((0+4)+(2+6)) + ((1+5)+(3+7)).
static inline float sum_lanes(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

static inline float max_lanes(__m256 v) {
  __m128 max = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  max = _mm_max_ps(max, _mm_movehl_ps(max, max));
  return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}

// 2^n for every n in [-126, 127].
static inline __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

// exp(x), within 1.1 units in the last place (relative error at most 8.4e-8, measured on 3e8
// values, where the result is a normal number); 0 and infinity where f32 ends; a NaN stays a NaN.
// exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; ln 2 is taken off in two
// parts, of which the first has few enough bits that n times it is exact; exp(r) is the minimax
// polynomial of Cephes' expf.
static inline __m256 exp8(__m256 x) {
  // Beyond these the result is 0 and infinity anyway. The bound is the first operand, since these
  // instructions return the second when either is a NaN.
  x = _mm256_max_ps(_mm256_set1_ps(-104.0f), x);
  x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r);
  p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
  // In two steps, since n reaches from -150 to 128 and subnormal results must round once.
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i first = _mm256_srai_epi32(whole, 1);
  const __m256i second = _mm256_sub_epi32(whole, first);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(first)), power_of_two(second));
}

// tanh(x), by the polynomial of Cephes' tanhf up to 0.625 and by exp8 beyond; odd to the bit.
static inline __m256 tanh8(__m256 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 size = _mm256_andnot_ps(sign, x);
  const __m256 z = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(-5.70498872745e-3f);
  p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(2.06390887954e-2f));
  p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-5.37397155531e-2f));
  p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(1.33314422036e-1f));
  p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-3.33332819422e-1f));
  const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, z), size, size);
  // 1 - 2 / (exp(2 x) + 1)
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 power = exp8(_mm256_add_ps(size, size));
  const __m256 large =
      _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(power, one)));
  const __m256 is_large = _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_GE_OQ);
  return _mm256_or_ps(_mm256_blendv_ps(small, large, is_large), _mm256_and_ps(sign, x));
}

// Calls body.operator()<rows at once>(row) until all are taken: kMost at once, of the rest half as
// many, and so on.
template <size_t kMost, typename Body>
static inline void take_by_halves(size_t rows, const Body& body, size_t row = 0) {
  for (; row + kMost <= rows; row += kMost) body.template operator()<kMost>(row);
  if constexpr (kMost > 1) take_by_halves<kMost / 2>(rows, body, row);
}

}  // namespace airllm::kernels::avx2

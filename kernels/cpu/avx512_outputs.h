// The eight lanes of the sums of two outputs, the second's behind the first's, in a vector of
// AVX-512. Each lane takes the same steps as in avx2_outputs.h, so that a result has the same bits.
// Only for files compiled with AVX-512 (F, BW, DQ, VL), AVX2, FMA and F16C; nothing here is shared
// with other files, for the reason given in operations.h.
#pragma once

#include "kernels/cpu/avx2_vector.h"

namespace airllm::kernels::avx512 {
namespace {

struct TwoOutputs {
  using Vector = __m512;
  static constexpr size_t kOutputs = 2;

  static inline Vector zero() { return _mm512_setzero_ps(); }
  static inline Vector fused(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static inline Vector load(const float* lanes) { return _mm512_loadu_ps(lanes); }
  static inline void store(float* lanes, Vector v) { _mm512_storeu_ps(lanes, v); }
  static inline Vector inputs(const float* x) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(x)); }
  template <NumberFormat F>
  static inline Vector weights(const char* at, size_t row_bytes) {
    if constexpr (F == NumberFormat::kF32) {
      return join(avx2::load8<F>(at), avx2::load8<F>(at + row_bytes));
    } else {
      const __m256i halves = load_both(at, row_bytes);
      if constexpr (F == NumberFormat::kF16) {
        return _mm512_cvtph_ps(halves);
      } else {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
      }
    }
  }
  static inline void codes(const char* at, size_t row_bytes, Vector (&numbers)[2]) {
    const __m256i bytes = load_both(at, row_bytes);
    const __m256i zeros = _mm256_setzero_si256();
    const __m256i mask = _mm256_set1_epi16(static_cast<short>(0xbfff));
    const __m256i low = _mm256_srai_epi16(_mm256_unpacklo_epi8(zeros, bytes), 1);
    const __m256i high = _mm256_srai_epi16(_mm256_unpackhi_epi8(zeros, bytes), 1);
    numbers[0] = _mm512_cvtph_ps(_mm256_and_si256(low, mask));
    numbers[1] = _mm512_cvtph_ps(_mm256_and_si256(high, mask));
  }
  static inline Vector spread(const float (&numbers)[kOutputs]) {
    return join(_mm256_set1_ps(numbers[0]), _mm256_set1_ps(numbers[1]));
  }
  static inline Vector spread(float number) { return _mm512_set1_ps(number); }
  static inline __m256 lanes_of(Vector v, size_t output) {
    return output == 0 ? _mm512_castps512_ps256(v) : _mm512_extractf32x8_ps(v, 1);
  }

  static constexpr size_t kRowsAtOnce = 8;
  template <typename Body>
  static inline void take_rows(size_t rows, const Body& body) {
    avx2::take_by_halves<8>(rows, body);
  }

 private:
  static inline __m512 join(__m256 first, __m256 second) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
  }
  // Sixteen bytes of each output.
  static inline __m256i load_both(const char* at, size_t row_bytes) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + row_bytes));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
  }
};

}  // namespace
}  // namespace airllm::kernels::avx512

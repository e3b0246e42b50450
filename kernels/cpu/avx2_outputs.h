// The eight lanes of one output's sum in a vector of AVX2: what the products in plain_product.h and
// fp8_product.h are written for. avx512_outputs.h has the same for two outputs. Only for files
// compiled with AVX2, FMA and F16C; nothing here is shared with other files, for the reason given
// in operations.h.
#pragma once

#include "kernels/cpu/avx2_vector.h"

namespace airllm::kernels::avx2 {
namespace {

struct OneOutput {
  using Vector = __m256;
  static constexpr size_t kOutputs = 1;  // of a vector

  static inline Vector zero() { return _mm256_setzero_ps(); }
  static inline Vector fused(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static inline Vector load(const float* lanes) { return _mm256_loadu_ps(lanes); }
  static inline void store(float* lanes, Vector v) { _mm256_storeu_ps(lanes, v); }
  // Eight inputs, for each output.
  static inline Vector inputs(const float* x) { return _mm256_loadu_ps(x); }
  // Eight numbers of each output, whose rows lie `row_bytes` apart.
  template <NumberFormat F>
  static inline Vector weights(const char* at, size_t /*row_bytes*/) {
    return load8<F>(at);
  }
  // Sixteen codes of fp8 of each output as words, of which f16 makes the code's value / 256: the
  // exponent and fraction have the places there that they have in f16, the sign goes to bit 15 and,
  // with the shift, to bit 14, from where it is taken again.
  static inline void codes(const char* at, size_t /*row_bytes*/, Vector (&numbers)[2]) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i zeros = _mm_setzero_si128();
    const __m128i mask = _mm_set1_epi16(static_cast<short>(0xbfff));
    const __m128i low = _mm_srai_epi16(_mm_unpacklo_epi8(zeros, bytes), 1);
    const __m128i high = _mm_srai_epi16(_mm_unpackhi_epi8(zeros, bytes), 1);
    numbers[0] = _mm256_cvtph_ps(_mm_and_si128(low, mask));
    numbers[1] = _mm256_cvtph_ps(_mm_and_si128(high, mask));
  }
  // A number of each output in all its lanes.
  static inline Vector spread(const float (&numbers)[kOutputs]) {
    return _mm256_set1_ps(numbers[0]);
  }
  static inline Vector spread(float number) { return _mm256_set1_ps(number); }
  static inline __m256 lanes_of(Vector v, size_t /*output*/) { return v; }

  // Calls body.operator()<kRows>(row) until all rows are taken: three at once; four as two and two,
  // since a single row waits for its own additions.
  static constexpr size_t kRowsAtOnce = 3;
  template <typename Body>
  static inline void take_rows(size_t rows, const Body& body) {
    size_t row = 0;
    for (; rows - row == 3 || rows - row > 4; row += 3) body.template operator()<3>(row);
    for (; rows - row >= 2; row += 2) body.template operator()<2>(row);
    if (row < rows) body.template operator()<1>(row);
  }
};

}  // namespace
}  // namespace airllm::kernels::avx2

// The loop that measures what a core computes at most, for the vectors of AVX2 and of AVX-512: V is
// OneOutput or TwoOutputs.
#pragma once

#include "kernels/cpu/avx2_vector.h"

namespace airllm::kernels::avx2 {
namespace {

// Twelve sums hide the latency of a fused product and sum on every core so far: 4 to 5 cycles, two
// of them begun in each.
template <typename V>
uint64_t burn_with(uint64_t rounds) {
  constexpr size_t kSums = 12;
  typename V::Vector sums[kSums];
#pragma GCC unroll 12
  for (size_t i = 0; i < kSums; ++i) sums[i] = V::spread(static_cast<float>(i));
  const typename V::Vector factor = V::spread(0.75f);
  for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kSums; ++i) sums[i] = V::fused(sums[i], factor, factor);
  }
  __m256 all = _mm256_setzero_ps();
#pragma GCC unroll 12
  for (size_t i = 0; i < kSums; ++i) all = _mm256_add_ps(all, V::lanes_of(sums[i], 0));
  volatile float kept = _mm256_cvtss_f32(all);
  (void)kept;
  return rounds * kSums * kLanes * V::kOutputs * 2;
}

}  // namespace
}  // namespace airllm::kernels::avx2

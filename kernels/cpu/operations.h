// The operations of each instruction set of the CPU, as backend.h describes them. The avx2 ones
// exist only where the build has AIRLLM_KERNELS_AVX2.
//
// Files compiled for more than the base instruction set must not emit inline functions that other
// files emit too (of the standard library, of ours): the linker keeps one copy of each, and the CPU
// at hand might not run it. So they use intrinsics, static functions and loops, and little else.
#pragma once

#include "kernels/backend.h"

namespace airllm::kernels {

namespace scalar {
void matmul(const MatmulArgs& args, ThreadPool& pool);
void rms_norm(const RmsNormArgs& args, ThreadPool& pool);
void rope(const RopeArgs& args, ThreadPool& pool);
void attention(const AttentionArgs& args, ThreadPool& pool);
void silu_multiply(float* gate, const float* up, size_t count, ThreadPool& pool);
void add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
              size_t width, ThreadPool& pool);
void to_f32(const void* in, NumberFormat format, float* out, size_t count);
}  // namespace scalar

namespace avx2 {
void matmul(const MatmulArgs& args, ThreadPool& pool);
void rms_norm(const RmsNormArgs& args, ThreadPool& pool);
void rope(const RopeArgs& args, ThreadPool& pool);
void attention(const AttentionArgs& args, ThreadPool& pool);
void silu_multiply(float* gate, const float* up, size_t count, ThreadPool& pool);
void add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
              size_t width, ThreadPool& pool);
void to_f32(const void* in, NumberFormat format, float* out, size_t count);
}  // namespace avx2

// The least work, in elementary steps, that is worth giving to another thread: waking one that
// spins costs about a microsecond.
inline constexpr size_t kMinStepsPerChunk = 16384;

// The fewest items of `steps_per_item` steps each that are worth a chunk, a multiple of `multiple`.
static inline size_t grain_for(size_t steps_per_item, size_t multiple) {
  const size_t items = kMinStepsPerChunk / (steps_per_item == 0 ? 1 : steps_per_item) + 1;
  return (items - 1) / multiple * multiple + multiple;
}

}  // namespace airllm::kernels

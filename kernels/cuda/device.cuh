// What the device code of all operations shares: stored numbers as f32, sums of a warp, launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/cuda_api.h"

namespace airllm::kernels::cuda {

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// The type in which a number of each format lies in memory.
template <NumberFormat F>
struct Stored;
template <>
struct Stored<NumberFormat::kF32> {
  using Type = float;
};
template <>
struct Stored<NumberFormat::kF16> {
  using Type = __half;
};
template <>
struct Stored<NumberFormat::kBF16> {
  using Type = __nv_bfloat16;
};

__device__ inline float widen(float number) { return number; }
__device__ inline float widen(__half number) { return __half2float(number); }
__device__ inline float widen(__nv_bfloat16 number) { return __bfloat162float(number); }

// The sum over all lanes, in every lane; always in the same order.
__device__ inline float sum_of_warp(float value) {
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}
__device__ inline float max_of_warp(float value) {
  for (unsigned distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

inline cudaStream_t raw(CudaStream* stream) { return reinterpret_cast<cudaStream_t>(stream); }

// How many blocks of `size` cover `count`; a launch with more than a grid's limit fails by itself.
inline unsigned blocks_for(size_t count, size_t size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

CudaStatus matmul(const MatmulArgs& args, CudaStream* stream);
CudaStatus matmul_transposed(const MatmulArgs& args, CudaStream* stream);
CudaStatus norm(const NormArgs& args, CudaStream* stream);
CudaStatus rope(const RopeArgs& args, CudaStream* stream);
CudaStatus attention(const AttentionArgs& args, CudaStream* stream);
CudaStatus map(const MapArgs& args, CudaStream* stream);
CudaStatus add(const AddArgs& args, CudaStream* stream);
CudaStatus copy_rows(const CopyArgs& args, CudaStream* stream);
CudaStatus add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
                    size_t width, CudaStream* stream);
CudaStatus to_f32(const void* in, NumberFormat format, float* out, size_t count,
                  CudaStream* stream);

}  // namespace airllm::kernels::cuda

// The product on a device: a warp makes one output of up to kRows rows.
//
// Recipe, for every row and output: lane l takes inputs 8 (l + 32 s) … + 7 for s = 0, 1, …, in
// order and fused; then the lanes are summed as sum_of_warp does. How many rows share the warp, and
// whether the weights can be loaded 16 bytes at a time, changes no step of it. Compressed weights
// are expanded in registers, eight at a time: such a run lies within one block of any format.
#include "kernels/cuda/compressed.cuh"
#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {
namespace {

constexpr unsigned kWarpsPerBlock = 8;
constexpr size_t kInputsAtOnce = 8;

// Numbers [0, count) at `from`, count <= 8; all 8 of them by 16-byte loads where `aligned`.
template <typename T>
__device__ void load(const T* from, size_t count, bool aligned, float (&out)[kInputsAtOnce]) {
  if (aligned && count == kInputsAtOnce) {
    constexpr size_t kNumbersPerLoad = sizeof(uint4) / sizeof(T);
#pragma unroll
    for (size_t part = 0; part < kInputsAtOnce / kNumbersPerLoad; ++part) {
      const uint4 bits = reinterpret_cast<const uint4*>(from)[part];
      T numbers[kNumbersPerLoad];
      memcpy(numbers, &bits, sizeof(bits));
#pragma unroll
      for (size_t i = 0; i < kNumbersPerLoad; ++i) {
        out[part * kNumbersPerLoad + i] = widen(numbers[i]);
      }
    }
    return;
  }
#pragma unroll
  for (size_t i = 0; i < kInputsAtOnce; ++i) {
    if (i < count) out[i] = widen(from[i]);
  }
}

template <NumberFormat F, unsigned kRows>
__global__ void multiply(MatmulArgs args, size_t first_row, bool aligned) {
  const size_t out = static_cast<size_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.y;
  if (out >= args.out) return;
  const char* const weight = static_cast<const char*>(args.weight) + out * args.weight_stride;
  const float* x = args.x + first_row * args.x_stride;

  float sums[kRows] = {};
  for (size_t begin = threadIdx.x * kInputsAtOnce; begin < args.in;
       begin += kWarp * kInputsAtOnce) {
    const size_t left = args.in - begin;
    const size_t count = left < kInputsAtOnce ? left : kInputsAtOnce;
    float weights[kInputsAtOnce];
    if constexpr (kIsCompressed<F>) {
      expand<F>(weight, args.in, begin, count, weights);
    } else {
      using T = typename Stored<F>::Type;
      load(reinterpret_cast<const T*>(weight) + begin, count, aligned, weights);
    }
#pragma unroll
    for (unsigned r = 0; r < kRows; ++r) {
      const float* inputs = x + r * args.x_stride + begin;
#pragma unroll
      for (size_t i = 0; i < kInputsAtOnce; ++i) {
        if (i < count) sums[r] = fmaf(weights[i], inputs[i], sums[r]);
      }
    }
  }
#pragma unroll
  for (unsigned r = 0; r < kRows; ++r) {
    const float sum = sum_of_warp(sums[r]);
    if (threadIdx.x == 0) {
      float& y = args.y[(first_row + r) * args.y_stride + out];
      y = args.accumulate ? y + sum : sum;
    }
  }
}

template <NumberFormat F, unsigned kRows>
void launch(const MatmulArgs& args, size_t first_row, CudaStream* stream) {
  const bool aligned = reinterpret_cast<uintptr_t>(args.weight) % sizeof(uint4) == 0 &&
                       args.weight_stride % sizeof(uint4) == 0;
  multiply<F, kRows>
      <<<blocks_for(args.out, kWarpsPerBlock), dim3(kWarp, kWarpsPerBlock), 0, raw(stream)>>>(
          args, first_row, aligned);
}

template <NumberFormat F>
void launch_all(const MatmulArgs& args, CudaStream* stream) {
  size_t row = 0;
  for (; row + 8 <= args.rows; row += 8) launch<F, 8>(args, row, stream);
  for (; row + 2 <= args.rows; row += 2) launch<F, 2>(args, row, stream);
  for (; row < args.rows; ++row) launch<F, 1>(args, row, stream);
}

// One thread for each number of y.
template <NumberFormat F>
__global__ void multiply_transposed(MatmulArgs args) {
  const size_t thread = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= args.rows * args.in) return;
  const size_t row = thread / args.in, i = thread % args.in;
  const auto* weight = static_cast<const typename Stored<F>::Type*>(args.weight);
  const float* x = args.x + row * args.x_stride;
  float sum = args.y[row * args.y_stride + i];
  for (size_t o = 0; o < args.out; ++o) sum = fmaf(x[o], widen(weight[o * args.in + i]), sum);
  args.y[row * args.y_stride + i] = sum;
}

}  // namespace

CudaStatus matmul_transposed(const MatmulArgs& args, CudaStream* stream) {
  constexpr unsigned kThreads = 256;
  if (args.rows * args.in == 0) return cudaSuccess;
  if (is_compressed(args.format)) return cudaErrorNotSupported;
  with_format(args.format, [&]<NumberFormat F>() {
    multiply_transposed<F>
        <<<blocks_for(args.rows * args.in, kThreads), kThreads, 0, raw(stream)>>>(args);
  });
  return cudaGetLastError();
}

CudaStatus matmul(const MatmulArgs& given, CudaStream* stream) {
  if (given.out == 0) return cudaSuccess;
  MatmulArgs args = given;
  args.weight_stride = weight_stride(given);
  switch (args.format) {
    case NumberFormat::kF32: launch_all<NumberFormat::kF32>(args, stream); break;
    case NumberFormat::kF16: launch_all<NumberFormat::kF16>(args, stream); break;
    case NumberFormat::kBF16: launch_all<NumberFormat::kBF16>(args, stream); break;
    case NumberFormat::kQ8: launch_all<NumberFormat::kQ8>(args, stream); break;
    case NumberFormat::kQ4: launch_all<NumberFormat::kQ4>(args, stream); break;
    case NumberFormat::kNF4: launch_all<NumberFormat::kNF4>(args, stream); break;
    case NumberFormat::kFP8: launch_all<NumberFormat::kFP8>(args, stream); break;
  }
  return cudaGetLastError();
}

}  // namespace airllm::kernels::cuda

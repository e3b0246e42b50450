// What touches each number once or twice, on a device. Products that are added are rounded before
// (__fmul_rn), as the CPU's operations do.
#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {
namespace {

constexpr unsigned kThreads = 256;

__device__ size_t global_thread() {
  return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// One block per row. Thread t adds the squares of t, t + 256, …; then come warps, then threads.
template <NumberFormat F>
__global__ void normalize(RmsNormArgs args) {
  const float* x = args.x + blockIdx.x * args.width;
  float* y = args.y + blockIdx.x * args.width;
  const auto* weight = static_cast<const typename Stored<F>::Type*>(args.weight);
  __shared__ float sums[kThreads / kWarp];

  float squares = 0;
  for (size_t i = threadIdx.x; i < args.width; i += kThreads) squares = fmaf(x[i], x[i], squares);
  squares = sum_of_warp(squares);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = squares;
  __syncthreads();
  float total = 0;
  for (const float sum : sums) total += sum;

  const float inverse = 1.0f / sqrtf(total / static_cast<float>(args.width) + args.epsilon);
  for (size_t i = threadIdx.x; i < args.width; i += kThreads) {
    y[i] = x[i] * inverse * widen(weight[i]);
  }
}

// One thread per row and pair, for all heads.
__global__ void rotate(RopeArgs args) {
  const size_t half = args.rotary_dim / 2;
  if (global_thread() >= args.rows * half) return;
  const size_t row = global_thread() / half, i = global_thread() % half;
  const float angle = static_cast<float>(args.positions[row]) * args.inverse_frequencies[i];
  const float cosine = cosf(angle) * args.scale, sine = sinf(angle) * args.scale;
  for (size_t h = 0; h < args.heads; ++h) {
    float* x = args.x + row * args.x_stride + h * args.head_dim + i;
    const float first = x[0], second = x[half];
    x[0] = __fmul_rn(first, cosine) - __fmul_rn(second, sine);
    x[half] = __fmul_rn(second, cosine) + __fmul_rn(first, sine);
  }
}

__global__ void gate_numbers(float* gate, const float* up, size_t count) {
  const size_t i = global_thread();
  if (i < count) gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

template <NumberFormat F>
__global__ void add_to_rows(float* x, size_t x_stride, const void* bias, size_t rows,
                            size_t width) {
  const size_t i = global_thread();
  if (i >= rows * width) return;
  const auto* numbers = static_cast<const typename Stored<F>::Type*>(bias);
  x[i / width * x_stride + i % width] += widen(numbers[i % width]);
}

template <NumberFormat F>
__global__ void convert(const void* in, float* out, size_t count) {
  const size_t i = global_thread();
  if (i < count) out[i] = widen(static_cast<const typename Stored<F>::Type*>(in)[i]);
}

}  // namespace

CudaStatus rms_norm(const RmsNormArgs& args, CudaStream* stream) {
  if (args.rows == 0 || args.width == 0) return cudaSuccess;
  with_format(args.format, [&]<NumberFormat F>() {
    normalize<F><<<blocks_for(args.rows, 1), kThreads, 0, raw(stream)>>>(args);
  });
  return cudaGetLastError();
}

CudaStatus rope(const RopeArgs& args, CudaStream* stream) {
  const size_t count = args.rows * (args.rotary_dim / 2);
  if (count == 0) return cudaSuccess;
  rotate<<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(args);
  return cudaGetLastError();
}

CudaStatus silu_multiply(float* gate, const float* up, size_t count, CudaStream* stream) {
  if (count == 0) return cudaSuccess;
  gate_numbers<<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(gate, up, count);
  return cudaGetLastError();
}

CudaStatus add_bias(float* x, size_t x_stride, const void* bias, NumberFormat format, size_t rows,
                    size_t width, CudaStream* stream) {
  if (rows * width == 0) return cudaSuccess;
  with_format(format, [&]<NumberFormat F>() {
    add_to_rows<F><<<blocks_for(rows * width, kThreads), kThreads, 0, raw(stream)>>>(
        x, x_stride, bias, rows, width);
  });
  return cudaGetLastError();
}

CudaStatus to_f32(const void* in, NumberFormat format, float* out, size_t count,
                  CudaStream* stream) {
  if (count == 0) return cudaSuccess;
  with_format(format, [&]<NumberFormat F>() {
    convert<F><<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(in, out, count);
  });
  return cudaGetLastError();
}

}  // namespace airllm::kernels::cuda

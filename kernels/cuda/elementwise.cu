// What touches each number once or twice, on a device. Products that are added are rounded before
// (__fmul_rn), as the CPU's operations do.
#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {
namespace {

constexpr unsigned kThreads = 256;

__device__ size_t global_thread() {
  return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The sum of the block's numbers, to every thread.
__device__ float sum_of_block(float number) {
  __shared__ float sums[kThreads / kWarp];
  number = sum_of_warp(number);
  __syncthreads();  // the last sum has been read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = number;
  __syncthreads();
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

// One block per group of a row. Thread t adds numbers t, t + 256, …; then come warps, then threads.
template <NumberFormat F>
__global__ void normalize(NormArgs args) {
  const size_t row = blockIdx.x / args.groups, group = blockIdx.x % args.groups;
  const float* x = args.x + row * args.x_stride + group * args.width;
  float* y = args.y + row * args.y_stride + group * args.width;
  const auto* weight = static_cast<const typename Stored<F>::Type*>(args.weight);
  const auto width = static_cast<float>(args.width);

  float mean = 0;
  if (args.kind == NormArgs::Kind::kLayer) {
    float sum = 0;
    for (size_t i = threadIdx.x; i < args.width; i += kThreads) sum += x[i];
    mean = sum_of_block(sum) / width;
  }
  float squares = 0;
  for (size_t i = threadIdx.x; i < args.width; i += kThreads) {
    squares = fmaf(x[i] - mean, x[i] - mean, squares);
  }
  const float inverse = 1.0f / sqrtf(sum_of_block(squares) / width + args.epsilon);
  for (size_t i = threadIdx.x; i < args.width; i += kThreads) {
    const float normal = (x[i] - mean) * inverse;
    y[i] = weight == nullptr ? normal : normal * (widen(weight[i]) + args.weight_offset);
  }
}

// One thread per row and pair, for all heads.
__global__ void rotate(RopeArgs args) {
  const size_t half = args.rotary_dim / 2;
  if (global_thread() >= args.rows * half) return;
  const size_t row = global_thread() / half, i = global_thread() % half;
  const float angle = static_cast<float>(args.positions[row]) * args.inverse_frequencies[i];
  const float cosine = cosf(angle) * args.scale, sine = sinf(angle) * args.scale;
  const size_t step = args.interleaved ? 2 : 1, apart = args.interleaved ? 1 : half;
  for (size_t h = 0; h < args.heads; ++h) {
    float* x = args.x + row * args.x_stride + h * args.head_dim + i * step;
    const float first = x[0], second = x[apart];
    x[0] = __fmul_rn(first, cosine) - __fmul_rn(second, sine);
    x[apart] = __fmul_rn(second, cosine) + __fmul_rn(first, sine);
  }
}

__device__ float apply(const MapArgs& args, float x) {
  switch (args.function) {
    case Function::kSilu: return x / (1 + expf(-x));
    case Function::kGelu: return 0.5f * x * (1 + erff(x * 0.70710678118654752f));
    case Function::kGeluTanh: {
      const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      return x / (1 + expf(-2 * inner));  // 1 + tanh(z) = 2 / (1 + exp(-2 z))
    }
    case Function::kRelu: return x < 0 ? 0 : x;
    case Function::kReluSquared: return x < 0 ? 0 : x * x;
    case Function::kXielu:
      if (x > 0) return args.a * x * x + args.c * x;
      return (expm1f(x < args.d ? x : args.d) - x) * args.b + args.c * x;
    case Function::kScale: return args.a * x;
    case Function::kClamp: return x < -args.a ? -args.a : x > args.a ? args.a : x;
    case Function::kSoftCap: return args.a * tanhf(x / args.a);
  }
  return x;
}

__global__ void map_numbers(MapArgs args) {
  const size_t i = global_thread();
  if (i >= args.rows * args.width) return;
  const size_t row = i / args.width, column = i % args.width;
  float* x = args.x + row * args.x_stride + column;
  const float y = apply(args, *x);
  *x = args.factor == nullptr ? y : y * args.factor[row * args.factor_stride + column];
}

__global__ void add_numbers(AddArgs args) {
  const size_t i = global_thread();
  if (i >= args.rows * args.width) return;
  const size_t row = i / args.width, column = i % args.width;
  float* y = args.y + row * args.y_stride + column;
  *y = fmaf(args.factor, args.x[row * args.x_stride + column], *y);
}

__global__ void copy_numbers(CopyArgs args) {
  const size_t i = global_thread();
  if (i >= args.rows * args.width) return;
  const size_t row = i / args.width, column = i % args.width;
  const size_t from = args.index == nullptr ? row : args.index[row];
  args.y[row * args.y_stride + column] =
      args.x == nullptr ? 0.0f : args.x[from * args.x_stride + column];
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

CudaStatus norm(const NormArgs& args, CudaStream* stream) {
  const size_t groups = args.rows * args.groups;
  if (groups == 0 || args.width == 0) return cudaSuccess;
  with_format(args.format, [&]<NumberFormat F>() {
    normalize<F><<<blocks_for(groups, 1), kThreads, 0, raw(stream)>>>(args);
  });
  return cudaGetLastError();
}

CudaStatus rope(const RopeArgs& args, CudaStream* stream) {
  const size_t count = args.rows * (args.rotary_dim / 2);
  if (count == 0) return cudaSuccess;
  rotate<<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(args);
  return cudaGetLastError();
}

CudaStatus map(const MapArgs& args, CudaStream* stream) {
  const size_t count = args.rows * args.width;
  if (count == 0) return cudaSuccess;
  map_numbers<<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(args);
  return cudaGetLastError();
}

CudaStatus add(const AddArgs& args, CudaStream* stream) {
  const size_t count = args.rows * args.width;
  if (count == 0) return cudaSuccess;
  add_numbers<<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(args);
  return cudaGetLastError();
}

CudaStatus copy_rows(const CopyArgs& args, CudaStream* stream) {
  const size_t count = args.rows * args.width;
  if (count == 0) return cudaSuccess;
  copy_numbers<<<blocks_for(count, kThreads), kThreads, 0, raw(stream)>>>(args);
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

// The module's one symbol: the table of the device's operations.
#include <cstring>

#include "kernels/cuda/device.cuh"

namespace airllm::kernels::cuda {
namespace {

const char* error_text(CudaStatus status) {
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // "no device" is an answer here, and must not show up in a later call
  return 0;
}

CudaStatus describe(int device, CudaDevice* out) {
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, device);
  if (status != cudaSuccess) return status;
  *out = {};
  static_assert(sizeof(out->name) == sizeof(properties.name));
  std::memcpy(out->name, properties.name, sizeof(out->name));
  out->memory_bytes = properties.totalGlobalMem;
  out->compute_major = properties.major;
  out->compute_minor = properties.minor;
  return cudaSuccess;
}

CudaStatus use_device(int device) { return cudaSetDevice(device); }
CudaStatus allocate(size_t bytes, void** out) { return cudaMalloc(out, bytes); }
CudaStatus release(void* memory) { return cudaFree(memory); }

CudaStatus create_stream(CudaStream** out) {
  return cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(out), cudaStreamNonBlocking);
}
CudaStatus destroy_stream(CudaStream* stream) { return cudaStreamDestroy(raw(stream)); }
CudaStatus copy(void* to, const void* from, size_t bytes, CudaStream* stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, raw(stream));
}
CudaStatus synchronize(CudaStream* stream) { return cudaStreamSynchronize(raw(stream)); }

constexpr CudaApi kApi = {
    kCudaApiVersion,   error_text,    device_count,   describe,  use_device,  allocate,
    release,           create_stream, destroy_stream, copy,      synchronize, matmul,
    matmul_transposed, norm,          rope,           attention, map,         add,
    copy_rows,         add_bias,      to_f32};

}  // namespace
}  // namespace airllm::kernels::cuda

extern "C" __attribute__((visibility("default"))) const airllm::kernels::CudaApi*
airllm_cuda_api() {
  return &airllm::kernels::cuda::kApi;
}

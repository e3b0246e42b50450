// The operations on a CUDA device, as a table that a module gives away at run time, so that nothing
// else links against CUDA. No CUDA header is needed here.
//
// Operations mean what backend.h says, with every pointer (also those inside AttentionRow, and the
// array of AttentionRow) pointing to device memory. They are put in order on a stream and return
// before they are done. Each row's result depends on that row alone: sums have a fixed order,
// whatever the number of rows or outputs. Functions that return a CudaStatus give 0 for success;
// an error of the device itself sticks, and ends all later calls with the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "kernels/backend.h"

namespace airllm::kernels {

using CudaStatus = int;  // a cudaError_t
struct CudaStream;       // a cudaStream_t

struct CudaDevice {
  char name[256];
  uint64_t memory_bytes;
  int compute_major, compute_minor;
};

// Raised with every change of CudaApi or of the argument structs.
inline constexpr uint32_t kCudaApiVersion = 4;
// The one symbol of the module: const CudaApi* airllm_cuda_api(), never null, valid for ever.
inline constexpr const char* kCudaApiSymbol = "airllm_cuda_api";

struct CudaApi {
  uint32_t version;  // kCudaApiVersion

  const char* (*error_text)(CudaStatus);
  // 0 without a device or a driver.
  int (*device_count)();
  CudaStatus (*describe)(int device, CudaDevice* out);
  // The device that this thread's further calls mean.
  CudaStatus (*use_device)(int device);

  CudaStatus (*allocate)(size_t bytes, void** out);
  CudaStatus (*release)(void* memory);
  CudaStatus (*create_stream)(CudaStream** out);
  CudaStatus (*destroy_stream)(CudaStream* stream);
  // Between host and device memory, or within the device; host memory must stay until done.
  CudaStatus (*copy)(void* to, const void* from, size_t bytes, CudaStream* stream);
  CudaStatus (*synchronize)(CudaStream* stream);

  CudaStatus (*matmul)(const MatmulArgs&, CudaStream*);
  CudaStatus (*matmul_transposed)(const MatmulArgs&, CudaStream*);
  CudaStatus (*norm)(const NormArgs&, CudaStream*);
  CudaStatus (*rope)(const RopeArgs&, CudaStream*);
  CudaStatus (*attention)(const AttentionArgs&, CudaStream*);
  CudaStatus (*map)(const MapArgs&, CudaStream*);
  CudaStatus (*add)(const AddArgs&, CudaStream*);
  CudaStatus (*copy_rows)(const CopyArgs&, CudaStream*);
  CudaStatus (*add_bias)(float* x, size_t x_stride, const void* bias, NumberFormat format,
                         size_t rows, size_t width, CudaStream*);
  CudaStatus (*to_f32)(const void* in, NumberFormat format, float* out, size_t count, CudaStream*);
};

// Loads the module (libairllm_cuda.so) at `path` for the life of the program. kUnavailable when it
// is not there or does not load, kConfig when it is of another version.
Result<const CudaApi*> load_cuda_module(const char* path);

}  // namespace airllm::kernels

#include <dlfcn.h>

#include <string>

#include "kernels/cuda/cuda_api.h"

namespace airllm::kernels {

Result<const CudaApi*> load_cuda_module(const char* path) {
  // Never closed: the CUDA runtime inside cannot be unloaded safely.
  void* module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const char* reason = dlerror();
    return Unexpected(ErrorCode::kUnavailable,
                      std::string("cannot load the CUDA module ") + path + ": " +
                          (reason != nullptr ? reason : "unknown reason"),
                      "install it, or run on the CPU");
  }
  using GetApi = const CudaApi* (*)();
  const auto get_api = reinterpret_cast<GetApi>(dlsym(module, kCudaApiSymbol));
  if (get_api == nullptr || get_api()->version != kCudaApiVersion) {
    return Unexpected(ErrorCode::kConfig,
                      std::string("the CUDA module ") + path + " is of another version",
                      "install the module that belongs to this program");
  }
  return get_api();
}

}  // namespace airllm::kernels

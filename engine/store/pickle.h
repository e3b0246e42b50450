// The subset of Python's pickle in which PyTorch writes tensors (torch.save). Nothing is ever run:
// what a pickle may name is a short list, and anything else is refused by its name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/store/safetensors.h"

namespace airllm::store {

// A tensor, contiguous in row-major order, as a run of elements of a storage.
struct PickledTensor {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<uint64_t> shape;
  std::string storage;         // the key of the archive's file that holds it
  uint64_t first_element = 0;  // in that storage
  uint64_t elements = 0;
};

inline constexpr uint64_t kMaxPickleBytes = 64'000'000;

// The tensors of a pickled dictionary, in its order. `what` stands for the file in messages; errors
// are kData.
Result<std::vector<PickledTensor>> read_pickled_tensors(std::string_view pickle,
                                                        const std::string& what);

}  // namespace airllm::store

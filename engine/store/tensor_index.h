// The tensors of a checkpoint's weight files, by their names.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/checked.h"
#include "base/result.h"
#include "engine/store/disk.h"
#include "engine/store/safetensors.h"

namespace airllm::store {

using WeightFiles = std::vector<std::unique_ptr<DiskFile>>;

// A tensor as some weight file has it.
struct FoundTensor {
  size_t file = 0;  // index into WeightFiles
  uint64_t offset_bytes = 0;
  Dtype dtype = Dtype::kU8;
  std::vector<uint64_t> shape;

  uint64_t elements() const { return checked_product(shape).value(); }
  uint64_t bytes() const { return elements() * dtype_bytes(dtype); }
};

// Built by one thread.
struct TensorIndex {
  std::string label;  // of the checkpoint, for messages
  WeightFiles files;
  std::unordered_map<std::string, FoundTensor> tensors;
  std::unordered_set<std::string> used;  // those that the model is made of

  // Null when there is none; one that is there counts as used from then on.
  const FoundTensor* use(const std::string& name);
  // The bytes of a small one.
  Result<std::string> read(const FoundTensor& tensor) const;
  // A kData error of the checkpoint.
  Unexpected bad(const std::string& why, std::string remedy = {}) const;
};

}  // namespace airllm::store

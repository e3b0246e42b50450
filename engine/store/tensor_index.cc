#include "engine/store/tensor_index.h"

namespace airllm::store {

const FoundTensor* TensorIndex::use(const std::string& name) {
  const auto at = tensors.find(name);
  if (at == tensors.end()) return nullptr;
  used.insert(name);
  return &at->second;
}

Result<std::string> TensorIndex::read(const FoundTensor& tensor) const {
  return read_bytes(*files[tensor.file], tensor.offset_bytes, tensor.bytes());
}

Unexpected TensorIndex::bad(const std::string& why, std::string remedy) const {
  return Unexpected(ErrorCode::kData, label + ": " + why, std::move(remedy));
}

}  // namespace airllm::store

// The safetensors format (github.com/huggingface/safetensors): 8 bytes of header length, a JSON
// header, and the tensors' bytes without a gap. Read strictly, from untrusted files.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/store/disk.h"

namespace airllm::store {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference implementation

enum class Dtype : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
  kC64,
};
const char* dtype_name(Dtype dtype);  // as in the header: "BF16"
uint64_t dtype_bytes(Dtype dtype);    // of one element

struct TensorRecord {
  std::string name;
  Dtype dtype = Dtype::kU8;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // of its bytes, counted from the end of the header
  uint64_t end = 0;

  bool operator==(const TensorRecord&) const = default;
};

struct SafetensorsHeader {
  uint64_t data_offset = 0;  // in the file: 8 + the header's length
  uint64_t hash = 0;         // XXH3-64 of the first data_offset bytes of the file
  std::map<std::string, std::string> metadata;
  std::vector<TensorRecord> tensors;  // in the order of their bytes
};

// Checks everything that the format demands: known dtypes, shapes whose size is the byte range,
// ranges from 0 to `data_bytes` without gap or overlap. Errors are kData and name the tensor.
// Leaves data_offset and hash unset.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view json, uint64_t data_bytes,
                                                   const std::string& what);

Result<SafetensorsHeader> read_safetensors_header(const DiskFile& file);

// The length and the JSON text, filled up with spaces to a multiple of `alignment`.
std::string write_safetensors_header(const std::map<std::string, std::string>& metadata,
                                     const std::vector<TensorRecord>& tensors, uint64_t alignment);

}  // namespace airllm::store

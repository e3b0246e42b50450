// Where everything lies in a shard file, from the tensors that it holds; see airllm-shard(5). The
// writer and the reader both go by this, so they cannot disagree.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/model/stages.h"
#include "engine/store/safetensors.h"
#include "engine/store/shard.h"

namespace airllm::store {

inline constexpr const char* kShardFormat = "airllm-shard";
inline constexpr const char* kShardVersion = "1";
inline constexpr const char* kRowMajorLayout = "row-major";
// Row-major, but some tensors are rows of a compressed format: U8 [rows, bytes of a row], whose
// format the metadata name.
inline constexpr const char* kCompressedLayout = "compressed-rows";
// The same, where rows of some have outliers besides, whose count the metadata give.
inline constexpr const char* kOutliersLayout = "compressed-rows-outliers";
inline constexpr const char* kChecksumsTensor = "checksums";
inline constexpr const char* kOutliersTensor = "outliers";
inline constexpr const char* kShardSuffix = ".safetensors";

struct ShardLayout {
  std::string header;                 // the file's first bytes, a multiple of 4096
  std::vector<TensorRecord> records;  // everything in file order, pads and checksums too
  std::vector<ShardTensor> tensors;   // the weights; their checksums are zero
  uint64_t checksums_offset = 0;      // in the file
  uint64_t checksums_bytes = 0;
  uint64_t outliers_offset = 0;  // in the file, of the places of all outliers
  uint64_t outliers_bytes = 0;
  uint64_t file_bytes = 0;

  uint64_t weight_bytes() const;
};

// `formats` gives each tensor of the stage its number format, `outliers` how many it has; empty:
// there are none. Where they are is not known yet.
ShardLayout layout_shard(const model::StageSpec& stage,
                         const std::vector<kernels::NumberFormat>& formats,
                         const std::vector<size_t>& outliers = {});

// The tensor with its blocks, whose checksums are zero, and outliers; it lies nowhere yet.
ShardTensor shard_tensor(const model::TensorSpec& spec, kernels::NumberFormat format,
                         size_t outliers = 0);

// The key of a compressed tensor's format in the metadata.
std::string format_key(const std::string& tensor);
// The key of how many outliers it has.
std::string outliers_key(const std::string& tensor);

// The plain number formats, and their names in a header.
std::optional<kernels::NumberFormat> weight_format(Dtype dtype);
Dtype weight_dtype(kernels::NumberFormat format);

// "F32[128, 64]", for messages.
std::string describe_shape(const std::vector<uint64_t>& shape);

// Checksums as the bytes of the "checksums" tensor.
std::string checksum_table(const std::vector<ShardTensor>& tensors);

// Where the outliers are, as the bytes of the "outliers" tensor.
std::string outlier_table(const std::vector<ShardTensor>& tensors);

}  // namespace airllm::store

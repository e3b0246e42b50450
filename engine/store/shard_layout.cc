#include "engine/store/shard_layout.h"

#include <map>
#include <numeric>

#include "base/checked.h"
#include "base/units.h"

namespace airllm::store {
namespace {

constexpr uint64_t kChecksumBytes = 8;

void append_little_endian(std::string& out, uint64_t number, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(number >> 8 * i));
}

// Lays records one after another, each on a page boundary.
class Placer {
 public:
  explicit Placer(std::vector<TensorRecord>& records) : records_(records) {}

  // Returns where the tensor begins, counted from the end of the header.
  uint64_t place(const std::string& name, Dtype dtype, std::vector<uint64_t> shape,
                 uint64_t bytes) {
    const uint64_t begin = round_up(end_, kPageBytes);
    if (begin > end_) {
      records_.push_back(
          {"pad." + std::to_string(pads_++), Dtype::kU8, {begin - end_}, end_, begin});
    }
    end_ = begin + bytes;
    records_.push_back({name, dtype, std::move(shape), begin, end_});
    return begin;
  }
  uint64_t end() const { return end_; }

 private:
  std::vector<TensorRecord>& records_;
  uint64_t end_ = 0;
  uint64_t pads_ = 0;
};

}  // namespace

uint64_t rows_per_block(uint64_t rows, uint64_t row_bytes) {
  // The fewest rows that make whole pages.
  const uint64_t page_rows = kPageBytes / std::gcd(kPageBytes, row_bytes);
  uint64_t count = 0;
  if (page_rows * row_bytes <= 2 * kBlockTargetBytes) {
    count = std::max<uint64_t>(round_down(kBlockTargetBytes / row_bytes, page_rows), page_rows);
  } else {
    count = std::max<uint64_t>(kBlockTargetBytes / row_bytes, 1);
  }
  return std::min(count, rows);
}

uint64_t ShardLayout::weight_bytes() const {
  uint64_t sum = 0;
  for (const ShardTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

ShardTensor shard_tensor(const model::TensorSpec& spec, kernels::NumberFormat format,
                         size_t outliers) {
  ShardTensor tensor;
  tensor.name = spec.name;
  tensor.format = format;
  tensor.shape = spec.shape;
  tensor.rows = spec.shape.size() == 2 ? spec.shape[0] : 1;
  tensor.row_bytes = kernels::row_bytes(format, spec.shape.back(), outliers);
  tensor.outliers.resize(outliers);
  tensor.rows_per_block = rows_per_block(tensor.rows, tensor.row_bytes);
  tensor.block_checksums.resize((tensor.rows + tensor.rows_per_block - 1) / tensor.rows_per_block);
  return tensor;
}

ShardLayout layout_shard(const model::StageSpec& stage,
                         const std::vector<kernels::NumberFormat>& formats,
                         const std::vector<size_t>& outliers) {
  AIRLLM_CHECK(formats.size() == stage.tensors.size());
  AIRLLM_CHECK(outliers.empty() || outliers.size() == formats.size());
  ShardLayout out;
  Placer placer(out.records);
  uint64_t blocks = 0;
  std::map<std::string, std::string> metadata{{"format", kShardFormat},
                                              {"version", kShardVersion},
                                              {"layout", kRowMajorLayout},
                                              {"stage", stage.shard_name}};
  for (size_t i = 0; i < formats.size(); ++i) {
    ShardTensor tensor =
        shard_tensor(stage.tensors[i], formats[i], outliers.empty() ? 0 : outliers[i]);
    std::vector<uint64_t> shape = tensor.shape;
    if (kernels::is_compressed(tensor.format)) {
      shape = {tensor.rows, tensor.row_bytes};
      if (metadata["layout"] == kRowMajorLayout) metadata["layout"] = kCompressedLayout;
      metadata[format_key(tensor.name)] = kernels::number_format_name(tensor.format);
    }
    if (!tensor.outliers.empty()) {
      metadata["layout"] = kOutliersLayout;
      metadata[outliers_key(tensor.name)] = std::to_string(tensor.outliers.size());
      out.outliers_bytes += tensor.outliers.size() * kOutlierBytes;
    }
    tensor.offset_bytes =
        placer.place(tensor.name, weight_dtype(tensor.format), std::move(shape), tensor.bytes());
    blocks += tensor.block_checksums.size();
    out.tensors.push_back(std::move(tensor));
  }
  if (out.outliers_bytes > 0) {
    out.outliers_offset =
        placer.place(kOutliersTensor, Dtype::kU8, {out.outliers_bytes}, out.outliers_bytes);
  }
  out.checksums_bytes = blocks * kChecksumBytes;
  out.checksums_offset =
      placer.place(kChecksumsTensor, Dtype::kU8, {out.checksums_bytes}, out.checksums_bytes);
  out.header = write_safetensors_header(metadata, out.records, kPageBytes);
  const uint64_t data_offset = out.header.size();
  for (ShardTensor& tensor : out.tensors) tensor.offset_bytes += data_offset;
  out.checksums_offset += data_offset;
  out.outliers_offset += data_offset;
  out.file_bytes = data_offset + placer.end();
  return out;
}

std::string format_key(const std::string& tensor) { return "format of " + tensor; }

std::string outliers_key(const std::string& tensor) { return "outliers of " + tensor; }

std::optional<kernels::NumberFormat> weight_format(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32: return kernels::NumberFormat::kF32;
    case Dtype::kF16: return kernels::NumberFormat::kF16;
    case Dtype::kBF16: return kernels::NumberFormat::kBF16;
    default: return std::nullopt;
  }
}

Dtype weight_dtype(kernels::NumberFormat format) {
  switch (format) {
    case kernels::NumberFormat::kF32: return Dtype::kF32;
    case kernels::NumberFormat::kF16: return Dtype::kF16;
    case kernels::NumberFormat::kBF16: return Dtype::kBF16;
    case kernels::NumberFormat::kQ8:
    case kernels::NumberFormat::kQ4:
    case kernels::NumberFormat::kNF4:
    case kernels::NumberFormat::kFP8: return Dtype::kU8;
  }
  return Dtype::kF32;
}

std::string describe_shape(const std::vector<uint64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return out + "]";
}

std::string checksum_table(const std::vector<ShardTensor>& tensors) {
  std::string out;
  for (const ShardTensor& tensor : tensors) {
    for (const uint64_t sum : tensor.block_checksums) {
      append_little_endian(out, sum, kChecksumBytes);
    }
  }
  return out;
}

std::string outlier_table(const std::vector<ShardTensor>& tensors) {
  std::string out;
  for (const ShardTensor& tensor : tensors) {
    for (const size_t place : tensor.outliers) append_little_endian(out, place, kOutlierBytes);
  }
  return out;
}

}  // namespace airllm::store

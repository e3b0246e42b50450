#include "engine/store/shard_index.h"

#include <algorithm>

#include "base/json.h"
#include "base/units.h"
#include "engine/store/hash.h"
#include "engine/store/shard_layout.h"
#include "engine/store/strict_json.h"

namespace airllm::store {
namespace {

constexpr uint64_t kMaxIndexBytes = 256 * kMiB;  // a stage of more than a terabyte

std::optional<kernels::NumberFormat> format_of(const std::string& dtype) {
  for (const auto format :
       {kernels::NumberFormat::kF32, kernels::NumberFormat::kF16, kernels::NumberFormat::kBF16}) {
    if (dtype == dtype_name(weight_dtype(format))) return format;
  }
  return std::nullopt;
}

Status fill_checksums(const StrictObject& item, ShardTensor& tensor) {
  const Json& sums = item.at("xxh3");
  if (!sums.is_array() || sums.size() != tensor.block_checksums.size()) {
    return item.bad("xxh3 is not a list of " + std::to_string(tensor.block_checksums.size()) +
                    " checksums");
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    const auto sum = sums[i].is_string() ? parse_hash(sums[i].get<std::string>()) : std::nullopt;
    if (!sum) return item.bad("xxh3[" + std::to_string(i) + "] is not 16 hexadecimal digits");
    tensor.block_checksums[i] = *sum;
  }
  return {};
}

// Puts the tensor where the item says, within a weight file.
Status place(const StrictObject& item, const std::vector<SourceRecord>& sources,
             ShardTensor& tensor) {
  AIRLLM_TRY(const std::string file, item.file_name("file"));
  const auto at = std::find_if(sources.begin() + (sources.empty() ? 0 : 1), sources.end(),
                               [&](const SourceRecord& source) { return source.name == file; });
  if (at == sources.end()) return item.bad("file is none of the model's weight files");
  AIRLLM_TRY(tensor.offset_bytes, item.number("offset"));
  if (tensor.offset_bytes > at->bytes || tensor.bytes() > at->bytes - tensor.offset_bytes) {
    return item.bad("it ends outside " + file);
  }
  tensor.file = static_cast<size_t>(at - sources.begin()) - 1;
  return {};
}

Result<ShardTensor> parse_tensor(const StrictObject& item, const model::TensorSpec& spec,
                                 const std::vector<SourceRecord>& sources) {
  AIRLLM_TRY_VOID(item.has_exactly({"name", "dtype", "shape", "file", "offset", "xxh3"}));
  AIRLLM_TRY(const std::string name, item.text("name"));
  if (name != spec.name) return item.bad("name is not " + spec.name);
  AIRLLM_TRY(const std::string dtype, item.text("dtype"));
  const auto format = format_of(dtype);
  if (!format) return item.bad("dtype is none that weights have");
  if (item.at("shape") != Json(spec.shape)) {
    return item.bad("shape is not " + describe_shape(spec.shape));
  }
  ShardTensor tensor = shard_tensor(spec, *format);
  AIRLLM_TRY_VOID(place(item, sources, tensor));
  AIRLLM_TRY_VOID(fill_checksums(item, tensor));
  return tensor;
}

}  // namespace

std::string index_text(const std::string& stage, const std::vector<ShardTensor>& tensors,
                       const std::vector<std::string>& files) {
  Json list = Json::array();
  for (const ShardTensor& tensor : tensors) {
    Json sums = Json::array();
    for (const uint64_t sum : tensor.block_checksums) sums.push_back(hash_text(sum));
    list.push_back(Json{{"name", tensor.name},
                        {"dtype", dtype_name(weight_dtype(tensor.format))},
                        {"shape", tensor.shape},
                        {"file", files[tensor.file]},
                        {"offset", tensor.offset_bytes},
                        {"xxh3", std::move(sums)}});
  }
  return dump_json(Json{{"format", kIndexFormat},
                        {"version", kIndexVersion},
                        {"stage", stage},
                        {"tensors", std::move(list)}}) +
         "\n";
}

Result<std::vector<ShardTensor>> parse_index(std::string_view text, const std::string& what,
                                             const model::StageSpec& stage,
                                             const std::vector<SourceRecord>& sources) {
  AIRLLM_TRY(const Json root, parse_json_object(text, what));
  const StrictObject top(root, what);
  AIRLLM_TRY_VOID(top.has_exactly({"format", "version", "stage", "tensors"}));
  if (root.at("format") != kIndexFormat) return top.bad("not an index of ours");
  if (root.at("version") != kIndexVersion) {
    return top.bad("format version " + dump_json(root.at("version")) +
                   ", but this program reads version " + std::to_string(kIndexVersion));
  }
  if (root.at("stage") != stage.shard_name) return top.bad("it is not of " + stage.shard_name);
  const Json& list = root.at("tensors");
  if (!list.is_array() || list.size() != stage.tensors.size()) {
    return top.bad("it does not have the " + std::to_string(stage.tensors.size()) +
                   " tensors of its stage");
  }
  std::vector<ShardTensor> out;
  for (const model::TensorSpec& spec : stage.tensors) {
    const StrictObject item(list[out.size()], what + ": tensor " + spec.name);
    AIRLLM_TRY(ShardTensor tensor, parse_tensor(item, spec, sources));
    out.push_back(std::move(tensor));
  }
  return out;
}

Result<Shard> open_index(Disk& disk, const std::string& path, const model::StageSpec& stage,
                         const ShardRecord& record, const std::vector<SourceRecord>& sources) {
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kRead));
  AIRLLM_TRY(const std::string text, read_text(*file, kMaxIndexBytes));
  if (text.size() != record.bytes || xxh3(text) != record.hash) {
    return Unexpected(ErrorCode::kData,
                      path + ": damaged: " + std::to_string(text.size()) + " bytes with the hash " +
                          hash_text(xxh3(text)) + " instead of " + std::to_string(record.bytes) +
                          " with " + hash_text(record.hash),
                      kRepairRemedy);
  }
  Shard shard;
  shard.path = path;
  shard.in_place = true;
  shard.file_bytes = text.size();
  AIRLLM_TRY(shard.tensors, parse_index(text, path, stage, sources));
  return shard;
}

}  // namespace airllm::store

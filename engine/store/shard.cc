#include "engine/store/shard.h"

#include <algorithm>
#include <charconv>

#include "base/checked.h"
#include "base/units.h"
#include "base/utf8.h"
#include "engine/store/compression.h"
#include "engine/store/hash.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {
namespace {

Unexpected damaged(const std::string& path, const std::string& why) {
  return Unexpected(ErrorCode::kData, path + ": " + why, kRepairRemedy);
}

Result<kernels::NumberFormat> format_of(const std::string& path, const SafetensorsHeader& header,
                                        const TensorRecord& record) {
  if (const auto format = weight_format(record.dtype)) return *format;
  const auto named = header.metadata.find(format_key(record.name));
  if (record.dtype == Dtype::kU8 && record.shape.size() == 2 && named != header.metadata.end()) {
    if (const auto format = compressed_format(named->second)) return *format;
    return damaged(path, "tensor " + record.name + " has the format " +
                             escape_for_display(named->second, true) +
                             ", which this program does not know");
  }
  return damaged(path, "tensor " + record.name + " has the dtype " + dtype_name(record.dtype));
}

// How many outliers the header gives the tensor, of which `most` are possible.
Result<size_t> outliers_of(const std::string& path, const SafetensorsHeader& header,
                           const std::string& tensor, uint64_t most) {
  const auto named = header.metadata.find(outliers_key(tensor));
  if (named == header.metadata.end()) return size_t{0};
  const std::string& text = named->second;
  size_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error == std::errc() && end == text.data() + text.size() && count <= most) return count;
  return damaged(path, "tensor " + tensor + " has " + escape_for_display(text, true) +
                           " outliers, of " + std::to_string(most) + " inputs");
}

// The layout that the stage's tensors must have, with the number formats that the header names.
Result<ShardLayout> expected_layout(const std::string& path, const SafetensorsHeader& header,
                                    const model::StageSpec& stage) {
  std::vector<kernels::NumberFormat> formats;
  std::vector<size_t> outliers;
  const std::vector<bool> may_be_compressed = compressible(stage);
  for (const model::TensorSpec& spec : stage.tensors) {
    const auto record =
        std::find_if(header.tensors.begin(), header.tensors.end(),
                     [&](const TensorRecord& candidate) { return candidate.name == spec.name; });
    if (record == header.tensors.end()) return damaged(path, "tensor " + spec.name + " is missing");
    AIRLLM_TRY(const kernels::NumberFormat format, format_of(path, header, *record));
    if (kernels::is_compressed(format) && !may_be_compressed[formats.size()]) {
      return damaged(path, "tensor " + spec.name + " is compressed, which it cannot be");
    }
    std::vector<uint64_t> shape = spec.shape;
    outliers.push_back(0);
    if (kernels::is_compressed(format)) {
      AIRLLM_TRY(outliers.back(), outliers_of(path, header, spec.name, shape.back()));
      shape.back() = kernels::row_bytes(format, shape.back(), outliers.back());
    }
    if (record->shape != shape) {
      return damaged(path, "tensor " + spec.name + " has the shape " +
                               describe_shape(record->shape) + " instead of " +
                               describe_shape(shape));
    }
    formats.push_back(format);
  }
  ShardLayout layout = layout_shard(stage, formats, outliers);
  if (layout.records != header.tensors || layout.header.size() != header.data_offset) {
    return damaged(path, "its tensors do not lie as format version " + std::string(kShardVersion) +
                             " lays them");
  }
  return layout;
}

Status check_metadata(const std::string& path, const SafetensorsHeader& header) {
  const auto value = [&](const char* key) {
    const auto at = header.metadata.find(key);
    return at == header.metadata.end() ? std::string("missing") : at->second;
  };
  if (value("format") != kShardFormat) return damaged(path, "not a shard of ours");
  const bool is_layout = value("layout") == kRowMajorLayout ||
                         value("layout") == kCompressedLayout || value("layout") == kOutliersLayout;
  if (value("version") != kShardVersion || !is_layout) {
    return damaged(path, "format version " + value("version") + " with layout " + value("layout") +
                             ", but this program reads version " + kShardVersion + " with layout " +
                             kRowMajorLayout + ", " + kCompressedLayout + " or " + kOutliersLayout);
  }
  return {};
}

// Takes a little-endian number off the front of `table`.
uint64_t take_number(std::span<const std::byte>& table, size_t bytes) {
  uint64_t number = 0;
  for (size_t i = bytes; i-- > 0;) number = number << 8 | std::to_integer<uint64_t>(table[i]);
  table = table.subspan(bytes);
  return number;
}

void fill_checksums(std::span<const std::byte> table, std::vector<ShardTensor>& tensors) {
  for (ShardTensor& tensor : tensors) {
    for (uint64_t& sum : tensor.block_checksums) sum = take_number(table, sizeof(uint64_t));
  }
}

Status fill_outliers(const std::string& path, std::span<const std::byte> table,
                     std::vector<ShardTensor>& tensors) {
  for (ShardTensor& tensor : tensors) {
    uint64_t least = 0;
    for (size_t& place : tensor.outliers) {
      place = take_number(table, kOutlierBytes);
      if (place < least || place >= tensor.shape.back()) {
        return damaged(path, "tensor " + tensor.name + " has an outlier at input " +
                                 std::to_string(place) + ", out of order or behind the last");
      }
      least = place + 1;
    }
  }
  return {};
}

}  // namespace

const ShardTensor* Shard::find(std::string_view name) const {
  for (const ShardTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Result<Shard> open_shard(Disk& disk, const std::string& path, const model::StageSpec& stage,
                         const ShardRecord& record) {
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kRead));
  AIRLLM_TRY(const uint64_t file_bytes, file->size_bytes());
  if (file_bytes != record.bytes) {
    return damaged(path, (file_bytes < record.bytes ? "truncated: it has " : "it has ") +
                             std::to_string(file_bytes) + " bytes instead of " +
                             std::to_string(record.bytes));
  }
  AIRLLM_TRY(const SafetensorsHeader header, read_safetensors_header(*file));
  AIRLLM_TRY_VOID(check_metadata(path, header));
  AIRLLM_TRY(ShardLayout layout, expected_layout(path, header, stage));

  std::vector<std::byte> start(layout.header.size());
  AIRLLM_TRY_VOID(file->read_at(0, start));
  std::vector<std::byte> outliers(layout.outliers_bytes);
  AIRLLM_TRY_VOID(file->read_at(layout.outliers_offset, outliers));
  std::vector<std::byte> table(layout.checksums_bytes);
  AIRLLM_TRY_VOID(file->read_at(layout.checksums_offset, table));
  Hasher hasher;
  hasher.update(start);
  hasher.update(outliers);
  hasher.update(table);
  if (hasher.digest() != record.hash) {
    return damaged(path, "its header or checksums are damaged: their hash is " +
                             hash_text(hasher.digest()) + " instead of " + hash_text(record.hash));
  }
  fill_checksums(table, layout.tensors);
  AIRLLM_TRY_VOID(fill_outliers(path, outliers, layout.tensors));
  Shard shard;
  shard.path = path;
  shard.file_bytes = file_bytes;
  shard.tensors = std::move(layout.tensors);
  AIRLLM_TRY(std::unique_ptr<DiskFile> weights, disk.open(path, OpenMode::kReadDirect));
  shard.files.push_back(std::move(weights));
  return shard;
}

Result<const std::byte*> read_with_pages(const DiskFile& file, uint64_t offset_bytes,
                                         uint64_t bytes, std::byte* memory) {
  const uint64_t begin = round_down(offset_bytes, kPageBytes);
  std::byte* const data = memory + (offset_bytes - begin);
  // Through the page cache nothing but the bytes themselves is read: the file may end with them.
  AIRLLM_TRY_VOID(
      file.is_direct()
          ? file.read_at(begin, {memory, round_up(offset_bytes + bytes, kPageBytes) - begin})
          : file.read_at(offset_bytes, {data, bytes}));
  return data;
}

Status check_block(const Shard& shard, const ShardTensor& tensor, uint64_t block,
                   std::span<const std::byte> data) {
  return check_block_checksum(shard, tensor, block, xxh3(data));
}

Status check_block_checksum(const Shard& shard, const ShardTensor& tensor, uint64_t block,
                            uint64_t checksum) {
  AIRLLM_CHECK(block < tensor.block_checksums.size());
  if (checksum == tensor.block_checksums[block]) return {};
  const uint64_t begin = block * tensor.rows_per_block * tensor.row_bytes;
  const uint64_t bytes = std::min(tensor.rows_per_block * tensor.row_bytes, tensor.bytes() - begin);
  const std::string what =
      "tensor " + tensor.name + (shard.in_place ? " was changed" : " is damaged") + " in the " +
      std::to_string(bytes) + " bytes at offset " + std::to_string(tensor.offset_bytes + begin) +
      ": their checksum is " + hash_text(checksum) + " instead of " +
      hash_text(tensor.block_checksums[block]);
  if (!shard.in_place) return damaged(shard.path, what);
  return Unexpected(ErrorCode::kData, shard.file_of(tensor).path() + ": " + what, kChangedRemedy);
}

}  // namespace airllm::store

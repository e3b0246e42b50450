// A shard file, opened for reading: where each tensor lies, and the checksums of its blocks.
//
// A shard is a valid safetensors file. Every tensor begins on a 4096-byte boundary; U8 tensors
// "pad.N" fill the gaps, and the last tensor, "checksums" (U8), holds one XXH3-64 (little-endian)
// for every *block* of every weight, in file order. A block is the unit of verification: a run of
// `rows_per_block` whole rows of one tensor (the last may be shorter). A tile (stream/) is a run of
// blocks. Before it lies, where weights have outliers, the tensor "outliers" (U8), one u32
// (little-endian) for the place of each. The manifest holds the XXH3-64 of all three, the header
// first, so it covers all. airllm-shard(5) is the contract.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/model/stages.h"
#include "engine/store/disk.h"
#include "kernels/number_format.h"

namespace airllm::store {

// Blocks are about this long, so that a ring of a few of them fits the smallest budget.
inline constexpr uint64_t kBlockTargetBytes = 128 * 1024;

// Of an outlier's place in the tensor "outliers".
inline constexpr uint64_t kOutlierBytes = 4;

// How many rows of `row_bytes` make a block of a tensor with `rows` rows: about kBlockTargetBytes,
// at least one row, and whole pages (4096) where that costs at most twice the target.
uint64_t rows_per_block(uint64_t rows, uint64_t row_bytes);

// What to do about a file that is read in place and no longer what it was.
inline constexpr const char* kChangedRemedy =
    "it must stay as it was when the model was made of it: bring it back, or remove the model with "
    "'airllm rm' and split the folder again";

// What to do about a damaged shard.
inline constexpr const char* kRepairRemedy =
    "remove the model with 'airllm rm' and split its source again";

struct ShardTensor {
  std::string name;
  kernels::NumberFormat format = kernels::NumberFormat::kF32;
  std::vector<uint64_t> shape;  // [out, in] or [width]; a vector counts as one row
  size_t file = 0;              // index into Shard::files
  uint64_t offset_bytes = 0;    // in that file
  uint64_t rows = 0;
  uint64_t row_bytes = 0;
  std::vector<size_t> outliers;  // inputs that rows have in 16 bits besides, in ascending order
  uint64_t rows_per_block = 0;
  std::vector<uint64_t> block_checksums;

  uint64_t bytes() const { return rows * row_bytes; }
};

// Files that weights lie in.
using OpenedFiles = std::vector<std::shared_ptr<const DiskFile>>;

// Immutable after open(); the files may be read from many threads.
struct Shard {
  std::string path;  // for messages
  // Where the weights lie: on page boundaries of the shard itself; for one that is read in place
  // anywhere in the files that the model was made of.
  OpenedFiles files;
  bool in_place = false;
  uint64_t file_bytes = 0;           // of the shard, or of the index
  std::vector<ShardTensor> tensors;  // weights only, in file order

  const ShardTensor* find(std::string_view name) const;
  const DiskFile& file_of(const ShardTensor& tensor) const { return *files[tensor.file]; }
};

// What the manifest says of a shard.
struct ShardRecord {
  std::string file;  // "001-layer-000.safetensors"
  uint64_t bytes = 0;
  uint64_t hash = 0;  // XXH3-64 of the header (with its length), outliers' places, and checksums
};

// Opens the shard of `stage` at `path`: reads its header and checksums, and checks them against
// `record` and against the tensors that the stage wants. The weights are opened for reading past
// the page cache where that is possible. Errors are kData and name the shard.
Result<Shard> open_shard(Disk& disk, const std::string& path, const model::StageSpec& stage,
                         const ShardRecord& record);

// Reads the file's bytes from `offset_bytes` on into `memory`, past the page cache in whole pages
// around them where the file is read so; then `memory` is on a page boundary and has room for them.
// Returns where the bytes begin.
Result<const std::byte*> read_with_pages(const DiskFile& file, uint64_t offset_bytes,
                                         uint64_t bytes, std::byte* memory);

// Checks block `block` of `tensor` at `data` against its checksum. A mismatch is a kData error that
// names the shard, the tensor, and the file offset, and tells how to repair it.
Status check_block(const Shard& shard, const ShardTensor& tensor, uint64_t block,
                   std::span<const std::byte> data);
// The same for a block whose checksum was computed already.
Status check_block_checksum(const Shard& shard, const ShardTensor& tensor, uint64_t block,
                            uint64_t checksum);

}  // namespace airllm::store

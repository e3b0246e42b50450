// Writes one stage's shard from a checkpoint, or the index of its weights where they lie, in row
// blocks, with a few MiB of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "engine/store/checkpoint.h"
#include "engine/store/disk.h"
#include "engine/store/shard.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {

// Called with the bytes of weights that were just done; an error ends the work.
using AdvanceFn = std::function<Status(uint64_t bytes)>;

// The layout of stage `stage`'s shard.
ShardLayout layout_of(const Checkpoint& checkpoint, size_t stage);

// Writes and syncs the shard at `path`; the record's file name is the last part of it.
Result<ShardRecord> write_shard(Disk& disk, const std::string& path, const Checkpoint& checkpoint,
                                size_t stage, const AdvanceFn& advance);

// How long the index of stage `stage` is.
uint64_t index_bytes(const Checkpoint& checkpoint, size_t stage);

// Reads the stage's weights and writes and syncs their index at `path` (shard_index.h).
Result<ShardRecord> write_index(Disk& disk, const std::string& path, const Checkpoint& checkpoint,
                                size_t stage, const AdvanceFn& advance);

// Reads the stage's weights from the checkpoint and compares them with the shard's checksums.
// Returns the name of the first tensor that differs, or an empty text.
Result<std::string> find_difference(const Checkpoint& checkpoint, size_t stage, const Shard& shard,
                                    const AdvanceFn& advance);

}  // namespace airllm::store

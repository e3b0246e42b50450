// Writes the shards of a checkpoint's stages, or the indexes of its weights where they lie, and
// compares them with it; in row blocks, with some tens of MiB of memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "engine/store/checkpoint.h"
#include "engine/store/disk.h"
#include "engine/store/run_stream.h"
#include "engine/store/shard.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {

// The layout of stage `stage`'s shard.
ShardLayout layout_of(const Checkpoint& checkpoint, size_t stage);

// Where the file of a stage lies.
using PathFn = std::function<std::string(size_t stage)>;
// Called, in the order of the stages, when a stage's file is on the disk; the record's file name is
// the last part of its path. One call at a time, by threads of the writer's, while the next file is
// written; an error ends the work.
using WrittenFn = std::function<Status(const ShardRecord& record)>;

// Writes and syncs the shards of the stages.
Status write_shards(Disk& disk, const PathFn& path, const Checkpoint& checkpoint, StageRange stages,
                    const WrittenFn& written, const AdvanceFn& advance);

// How long the index of stage `stage` is.
uint64_t index_bytes(const Checkpoint& checkpoint, size_t stage);

// Reads the stages' weights and writes and syncs their indexes (shard_index.h).
Status write_indexes(Disk& disk, const PathFn& path, const Checkpoint& checkpoint,
                     StageRange stages, const WrittenFn& written, const AdvanceFn& advance);

// Reads the stage's weights from the checkpoint and compares them with the shard's checksums.
// Returns the name of the first tensor that differs, or an empty text.
Result<std::string> find_difference(const Checkpoint& checkpoint, size_t stage, const Shard& shard,
                                    const AdvanceFn& advance);

}  // namespace airllm::store

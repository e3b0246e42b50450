// Reads all of a shard and checks every byte of it.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "engine/store/shard.h"

namespace airllm::store {

// The first damage is a kData error with shard, tensor and offset. Reads past the page cache where
// the shard's file does, so that it is the disk that is checked. `advance` is called with the bytes
// just read; an error from it ends the work.
Status verify_shard(const Shard& shard, uint64_t header_and_checksums_hash,
                    const std::function<Status(uint64_t bytes)>& advance);

// The same for one that is read in place, whose index was checked when it was opened.
Status verify_in_place(const Shard& shard, const std::function<Status(uint64_t bytes)>& advance);

}  // namespace airllm::store

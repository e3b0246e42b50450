// The weights of a checkpoint as the store has them, compressed where they are to be: read,
// compressed and taken by three threads side by side, in runs of whole blocks, with a few buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/store/checkpoint.h"
#include "engine/store/shard.h"

namespace airllm::store {

// Called with the bytes of weights that were just done; an error ends the work.
using AdvanceFn = std::function<Status(uint64_t bytes)>;

// Some whole blocks of a tensor.
struct Run {
  size_t tensor = 0;  // of the stage
  uint64_t first_block = 0;
  uint64_t offset_bytes = 0;  // in the tensor
  std::span<const std::byte> data;
  std::span<const size_t> outliers;  // of the tensor's inputs
};

// Takes the runs of each stage in the order of its tensors. Called by one thread of the stream's;
// an error ends the stream.
class RunTaker {
 public:
  virtual ~RunTaker() = default;
  virtual Status begin(size_t stage) = 0;
  virtual Status take(const Run& run) = 0;
  virtual Status end() = 0;  // of the stage
};

// Stages [begin, end) of a checkpoint.
struct StageRange {
  size_t begin = 0;
  size_t end = 0;
};

// The stage's tensors as they are to be stored; they lie nowhere yet, and which inputs are outliers
// is not known.
std::vector<ShardTensor> stored_tensors(const Checkpoint& checkpoint, size_t stage);

// Returns when all is taken, or the first error. `advance` is called by the calling thread.
Status stream_runs(const Checkpoint& checkpoint, StageRange stages, RunTaker& taker,
                   const AdvanceFn& advance);

}  // namespace airllm::store

// The residency plan: how a budget is divided, and which tiles stay in memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/model/architecture.h"
#include "engine/model/forward.h"
#include "engine/store/shard.h"
#include "engine/stream/expert_cache.h"
#include "engine/stream/tile.h"

namespace airllm::stream {

// What a plan needs to know of the model; made once per model.
struct PlanInput {
  const model::Architecture* architecture = nullptr;
  std::span<const store::Shard> shards;
  // For a device with memory of its own: what is looked up stays in the host's
  // (stream/host_tier.h), through whose slots tiles come, so that they are no larger than this, and
  // which makes them wait.
  std::optional<uint64_t> host_bytes = std::nullopt;
};

// One expert of one layer, whose tiles follow each other in the list. It is kept in memory as a
// whole, in a slot of its class, tile after tile, or streams.
struct ExpertTiles {
  uint32_t stage = 0;
  uint32_t layer = 0;  // among the layers with experts
  uint32_t expert = 0;
  uint32_t slot_class = 0;    // index into Plan::expert_classes
  size_t begin = 0, end = 0;  // of its tiles in the list
  uint64_t bytes = 0;         // of their read_bytes
};

// Experts of about one size, and the slots that any of them may lie in.
struct ExpertClass {
  uint64_t slot_bytes = 0;
  size_t experts = 0;  // how many there are
  size_t slots = 0;    // how many of them memory holds at once
  uint64_t offset = 0;
};

// Everything lies in one slab of slab_bytes <= the budget: workspace, ring, embedding cache (but on
// a device with memory of its own), slots of experts, then what may outlast the process, weights in
// fixed places: pinned tiles, and the embedding's blocks where there is room for all. What lies
// before, and in which slot, follows from prompts.
//
// Pinned tiles also lie in the part of the workspace that only a long prompt's rows use. They
// stream in a sweep that does, and are read once more after it.
struct Plan {
  TileList list;
  model::BatchLimits limits;
  uint64_t workspace_bytes = 0;           // of a batch that reaches the limits
  uint64_t reserved_workspace_bytes = 0;  // of it, what no tile uses
  uint64_t yielding_end = 0;              // of the tiles behind that, the last across its end
  uint64_t ring_slot_bytes = 0;
  size_t ring_slots = 0;              // 0: every tile is pinned
  uint64_t embedding_slot_bytes = 0;  // one block of the embedding
  size_t embedding_slots = 0;         // of the cache
  // Blocks that are looked up by row, when all have places of their own; by tensor of the first
  // shard, the number of its first one.
  size_t embedding_blocks = 0;
  std::vector<size_t> first_embedding_block;
  // Of every tile of `list`: where it stays in the slab, or kStreamed.
  std::vector<uint64_t> pinned_offset;
  std::vector<ExpertTiles> experts;  // in the order of use; empty for a dense model
  // Which experts are in these slots follows from use (expert_cache.h). Without slots where there
  // is no room for one, and where all experts are pinned.
  std::vector<ExpertClass> expert_classes;
  uint64_t slab_bytes = 0;

  static constexpr uint64_t kStreamed = ~uint64_t{0};
  // Of a tensor that is looked up in the cache, or not at all.
  static constexpr size_t kNoPlace = ~size_t{0};

  uint64_t ring_offset() const { return std::max(workspace_bytes, yielding_end); }
  uint64_t embedding_offset() const { return ring_offset() + ring_slots * ring_slot_bytes; }
  uint64_t slots_offset() const {
    return embedding_offset() + embedding_slots * embedding_slot_bytes;
  }
  uint64_t lasting_offset() const { return slots_offset() + expert_slot_bytes(); }
  uint64_t lasting_bytes() const { return slab_bytes - lasting_offset(); }
  uint64_t pinned_bytes() const;
  // Whether the tile has a place of its own, from the first sweep to the last but for those that it
  // yields its place to.
  bool stays(size_t tile) const { return pinned_offset[tile] != kStreamed; }
  // Whether it has one, which it yields to a large batch.
  bool yields(size_t tile) const { return pinned_offset[tile] < workspace_bytes; }
  // Whether it has one in the part that may outlast the process.
  bool lasts(size_t tile) const { return stays(tile) && !yields(tile); }
  size_t expert_slots() const;  // of all classes
  // How many experts can lie in memory as wholes, in slots or pinned.
  size_t room_for_experts() const { return streams() ? expert_slots() : experts.size(); }
  uint64_t expert_slot_bytes() const;  // that they take
  // Where slot `slot` (of all, as ExpertCache numbers them) of that class begins in the slab.
  uint64_t slot_offset(uint32_t slot_class, size_t slot) const;
  ExpertCacheShape expert_cache_shape() const;
  // Index into experts of the first one of that stage.
  size_t first_expert_of(uint32_t stage) const;
  bool streams() const { return ring_slots > 0; }
};

// A tile of a list, and what it takes.
struct SpreadTile {
  size_t index = 0;
  uint64_t bytes = 0;
};

// As many of `tiles`, which are in the order of use, as `room_bytes` hold: the same share of every
// stretch of them (Bresenham's line), so that reading keeps an even pace beside multiplying, then
// what still fits.
std::vector<SpreadTile> spread(std::span<const SpreadTile> tiles, uint64_t room_bytes);

// The tiles of `plan` that stay nowhere.
std::vector<SpreadTile> streamed_tiles(const Plan& plan);

// Blocks of what is looked up by row, but for an embedding that the head holds, and what the
// largest takes.
size_t embedding_blocks(const PlanInput& input);
uint64_t embedding_slot_bytes(const PlanInput& input);

// The best plan within `budget_bytes`. A sweep is a cyclic scan, so what stays is a fixed subset,
// spread evenly over the order of use, and the rest streams through the ring. With the memory that
// is left for weights (all but what the rows of some jobs that decode take, and a block of the
// embedding), that reads at most 1.02 times what an optimal (Belady) policy reads, or two tiles
// more where few of the least tiles stream. A budget that cannot hold the least working set is a
// kConfig error that names the least --ram.
//
// A byte of an expert saves its read only in the sweeps that use it, any other byte in each:
// experts share what the others leave. Where that is less than one of them, some of their tiles are
// pinned.
Result<Plan> make_plan(const PlanInput& input, uint64_t budget_bytes);

// The error of a budget, of --vram or of --ram, which names the least that the option takes.
Unexpected too_small(bool of_vram, uint64_t budget_bytes, uint64_t least_bytes);

// The budget from which on everything stays in memory.
uint64_t full_budget_bytes(const PlanInput& input);

}  // namespace airllm::stream

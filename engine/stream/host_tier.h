// The tier between the disk and a device with memory of its own: the host memory that tiles come
// through, and where some of them stay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/stream/plan.h"

namespace airllm::stream {

// How host memory is divided beside a plan for the device: slots, embedding blocks, kept tiles, in
// this order.
struct HostPlan {
  uint64_t slot_bytes = 0;  // what streams from disk passes through
  size_t slots = 0;
  uint64_t embedding_slot_bytes = 0;  // one block of the embedding
  size_t embedding_slots = 0;
  // Of every tile of the device's plan that streams there: where it stays, or Plan::kStreamed.
  std::vector<uint64_t> kept_offset;
  uint64_t memory_bytes = 0;

  uint64_t embedding_offset() const { return slots * slot_bytes; }
  uint64_t kept_bytes(const TileList& list) const;
  bool keeps(size_t tile) const { return kept_offset[tile] != Plan::kStreamed; }
};

// The best one within `budget_bytes` beside `device_plan`, whose embedding_slots is 0. What stays
// on the device needs no place here; of the rest, the same share of every stretch of the order of
// use is kept. A budget that holds no slot is a kConfig error that names the least --ram.
Result<HostPlan> make_host_plan(const PlanInput& input, const Plan& device_plan,
                                uint64_t budget_bytes);

// The budget from which on nothing that the device does not keep is read twice.
uint64_t full_host_budget_bytes(const PlanInput& input, const Plan& device_plan);

// Which parts of it are in use. Guarded by its stream's lock.
class HostTier {
 public:
  // Borrows all. `memory` is plan.memory_bytes long.
  HostTier(const HostPlan& plan, std::span<std::byte> memory);

  // Where a tile lies that has been read and is kept; null when it does not.
  const std::byte* find(size_t tile) const;
  // Where `tile` is to be read to: its own place, or a slot. Null while there is none.
  std::byte* take(size_t tile);
  bool can_take(size_t tile) const;
  // The end of what take() began: the memory is not needed any more, but for a kept tile's that
  // `is_whole`.
  void give_back(size_t tile, std::byte* memory, bool is_whole);

  bool keeps(size_t tile) const { return plan_.keeps(tile); }
  std::span<std::byte> slots() const { return memory_.first(plan_.slots * plan_.slot_bytes); }
  std::byte* embedding_slot(size_t slot) const {
    return memory_.data() + plan_.embedding_offset() + slot * plan_.embedding_slot_bytes;
  }
  size_t embedding_slots() const { return plan_.embedding_slots; }

 private:
  enum class State : uint8_t { kAbsent, kTaken, kWhole };

  const HostPlan& plan_;
  std::span<std::byte> memory_;
  std::vector<State> kept_;  // by tile
  std::vector<size_t> free_slots_;
};

}  // namespace airllm::stream

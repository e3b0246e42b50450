#include "engine/stream/host_tier.h"

#include <algorithm>

#include "base/check.h"

namespace airllm::stream {
namespace {

// One slot is read into while another is copied from; more smooth both, and hold what could be
// kept. So they are as many as are a small part of what is read in every sweep, and of the budget.
constexpr uint64_t kMostSlots = 16;
constexpr uint64_t kLeastSlots = 2;
constexpr uint64_t kReadShare = 25;
constexpr uint64_t kBudgetShare = 8;

HostPlan host_plan_without_tiles(const PlanInput& input, const Plan& device_plan, uint64_t slots) {
  HostPlan plan;
  plan.slot_bytes = device_plan.list.largest_read_bytes();
  plan.slots = slots;
  plan.embedding_slot_bytes = embedding_slot_bytes(input);
  plan.embedding_slots = 1;
  plan.kept_offset.assign(device_plan.list.tiles.size(), Plan::kStreamed);
  plan.memory_bytes = plan.embedding_offset() + plan.embedding_slot_bytes;
  return plan;
}

uint64_t streamed_bytes(const Plan& plan) { return plan.list.total_bytes() - plan.pinned_bytes(); }

}  // namespace

uint64_t HostPlan::kept_bytes(const TileList& list) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < kept_offset.size(); ++i) {
    if (keeps(i)) sum += list.tiles[i].read_bytes();
  }
  return sum;
}

uint64_t full_host_budget_bytes(const PlanInput& input, const Plan& device_plan) {
  const HostPlan plan = host_plan_without_tiles(input, device_plan, kLeastSlots);
  const uint64_t more_blocks = std::max<uint64_t>(embedding_blocks(input), 1) - 1;
  return plan.memory_bytes + more_blocks * plan.embedding_slot_bytes + streamed_bytes(device_plan);
}

Result<HostPlan> make_host_plan(const PlanInput& input, const Plan& device_plan,
                                uint64_t budget_bytes) {
  const uint64_t slot = std::max<uint64_t>(device_plan.list.largest_read_bytes(), 1);
  const uint64_t streamed = streamed_bytes(device_plan);
  const uint64_t read = streamed - std::min(streamed, budget_bytes);
  const uint64_t slots = std::clamp(std::min(read / kReadShare, budget_bytes / kBudgetShare) / slot,
                                    kLeastSlots, kMostSlots);
  HostPlan plan = host_plan_without_tiles(input, device_plan, slots);
  if (plan.memory_bytes > budget_bytes) {
    return too_small(false, budget_bytes, plan.memory_bytes);
  }
  // Blocks of the embedding come last: a token needs one of them, and all of the rest.
  const uint64_t room = budget_bytes - plan.memory_bytes;
  const uint64_t spare = room - std::min(room, streamed);
  const size_t more_blocks = std::min<uint64_t>(spare / plan.embedding_slot_bytes,
                                                std::max<size_t>(embedding_blocks(input), 1) - 1);
  plan.embedding_slots += more_blocks;
  plan.memory_bytes += more_blocks * plan.embedding_slot_bytes;
  for (const SpreadTile& tile :
       spread(streamed_tiles(device_plan), budget_bytes - plan.memory_bytes)) {
    plan.kept_offset[tile.index] = plan.memory_bytes;
    plan.memory_bytes += tile.bytes;
  }
  return plan;
}

HostTier::HostTier(const HostPlan& plan, std::span<std::byte> memory)
    : plan_(plan), memory_(memory), kept_(plan.kept_offset.size()) {
  AIRLLM_CHECK(memory.size() >= plan.memory_bytes);
  for (size_t i = plan.slots; i > 0; --i) free_slots_.push_back(i - 1);
}

const std::byte* HostTier::find(size_t tile) const {
  return kept_[tile] == State::kWhole ? memory_.data() + plan_.kept_offset[tile] : nullptr;
}

bool HostTier::can_take(size_t tile) const {
  return keeps(tile) ? kept_[tile] == State::kAbsent : !free_slots_.empty();
}

std::byte* HostTier::take(size_t tile) {
  if (!can_take(tile)) return nullptr;
  if (keeps(tile)) {
    kept_[tile] = State::kTaken;
    return memory_.data() + plan_.kept_offset[tile];
  }
  const size_t slot = free_slots_.back();
  free_slots_.pop_back();
  return memory_.data() + slot * plan_.slot_bytes;
}

void HostTier::give_back(size_t tile, std::byte* memory, bool is_whole) {
  if (keeps(tile)) {
    kept_[tile] = is_whole ? State::kWhole : State::kAbsent;
    return;
  }
  free_slots_.push_back(static_cast<size_t>(memory - memory_.data()) / plan_.slot_bytes);
}

}  // namespace airllm::stream

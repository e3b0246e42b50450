#include "engine/stream/plan.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/checked.h"
#include "base/units.h"

namespace airllm::stream {
namespace {

// Beyond this, more rows per sweep gain nothing: the sweep is bound by multiplying.
constexpr uint64_t kMostRows = 512;
constexpr uint64_t kMostLogitRows = 64;
// Each job that decodes takes a row with logits. Room for so many goes before rows for prompts and
// before pinned tiles, since a sweep that carries another job saves that job a sweep of its own.
constexpr uint64_t kSharedJobs = 8;
constexpr uint64_t kMostWorkspaceBytes = 128 * kMiB;
// Larger tiles gain no reading speed, and make cancellation and the ring coarser.
constexpr uint64_t kMostTileBytes = 4 * kMiB;
// Two slots let one tile be read while another is in use; more smooth the reading.
constexpr uint64_t kMostSlots = 4;
constexpr uint64_t kLeastSlots = 2;
// What a ring has beyond two slots could hold tiles that stay, and what is left beside whole pinned
// tiles holds nothing. With so many tiles that stream in a sweep, the one is a hundredth of them,
// the other less than half of that. More and smaller ones would be read more slowly.
constexpr uint64_t kStreamedTiles = 200;
// A device's ring holds tiles that are read and copied, too. More of them than kMostSlots, as long
// as they are so small a part of what streams.
constexpr uint64_t kMostDeviceSlots = 12;
constexpr uint64_t kDeviceSlotShare = 100;
// Of the host's memory beside a device, what one tile may take.
constexpr uint64_t kHostShare = 8;
// An expert of at least so much of the largest one of a class may use its slots.
constexpr double kLeastOfSlot = 0.8;
// Norms and biases: too small to be worth a read of their own in every sweep.
constexpr uint64_t kSmallTileBytes = 64 * kKiB;

// Gives each block of what is looked up by row a number, but for an embedding that the head holds.
void number_embedding_blocks(const PlanInput& input, Plan& plan) {
  const std::vector<store::ShardTensor>& tensors = input.shards.front().tensors;
  plan.first_embedding_block.assign(tensors.size(), Plan::kNoPlace);
  plan.embedding_blocks = 0;
  const model::StageSpec stage = model::stages(*input.architecture).front();
  for (const model::Step& step : stage.steps) {
    if (step.tensor == model::Step::kNoTensor || step.is_driven()) continue;
    if (step.tensor == 0 && input.architecture->tied_head) continue;
    plan.first_embedding_block[step.tensor] = plan.embedding_blocks;
    plan.embedding_blocks += tensors[step.tensor].block_checksums.size();
  }
}

uint64_t workspace_bytes(const PlanInput& input, const model::BatchLimits& limits) {
  return round_up(model::ForwardPass::workspace_bytes(*input.architecture, limits), kPageBytes);
}

model::BatchLimits batch_of(const PlanInput& input, size_t rows, size_t logit_rows) {
  model::BatchLimits limits{rows, logit_rows, false, 0};
  for (const store::Shard& shard : input.shards) {
    for (const store::ShardTensor& tensor : shard.tensors) {
      limits.prepares = limits.prepares || kernels::takes_prepared(tensor.format);
      limits.outliers = std::max(limits.outliers, tensor.outliers.size());
    }
  }
  return limits;
}

// Of the least batch that a plan with everything pinned has room for.
uint64_t least_full_workspace(const PlanInput& input) {
  return workspace_bytes(input, batch_of(input, 2, 2));
}

// The largest batch whose workspace stays within `bytes`, at least one row.
model::BatchLimits limits_within(const PlanInput& input, uint64_t bytes) {
  const model::Architecture& architecture = *input.architecture;
  constexpr uint64_t kAlignment = 64;  // of each part of the workspace
  const model::BatchLimits one = batch_of(input, 1, 1);
  model::BatchLimits two_rows = one;
  two_rows.rows = 2;
  const uint64_t least = model::ForwardPass::workspace_bytes(architecture, one);
  const uint64_t row =
      model::ForwardPass::workspace_bytes(architecture, two_rows) - least + kAlignment;
  const uint64_t logit_row = architecture.vocabulary * sizeof(float) + kAlignment;
  uint64_t spare = bytes > least ? bytes - least : 0;
  const uint64_t shared = std::min(spare / (row + logit_row), kSharedJobs - 1);
  spare -= shared * (row + logit_row);
  // Of the rest, a quarter for logits: most rows of a prompt want none.
  model::BatchLimits limits = one;
  limits.rows = std::min(1 + shared + spare * 3 / 4 / row, kMostRows);
  limits.logit_rows = std::min(1 + shared + spare / 4 / logit_row, kMostLogitRows);
  limits.logit_rows = std::min(limits.logit_rows, limits.rows);
  return limits;
}

// One way to divide a budget among all but the pinned tiles.
struct Division {
  uint64_t workspace;
  uint64_t tile;
  size_t slots;
};

// The experts of `list`, without their classes.
std::vector<ExpertTiles> experts_of(const TileList& list) {
  std::vector<ExpertTiles> experts;
  for (size_t i = 0; i < list.tiles.size(); ++i) {
    const Tile& tile = list.tiles[i];
    if (!tile.expert) continue;
    if (experts.empty() || experts.back().end != i || experts.back().stage != tile.stage ||
        experts.back().expert != *tile.expert) {
      const bool is_next = !experts.empty() && experts.back().stage != tile.stage;
      const uint32_t layer = experts.empty() ? 0 : experts.back().layer + (is_next ? 1 : 0);
      experts.push_back(
          {.stage = tile.stage, .layer = layer, .expert = *tile.expert, .begin = i, .end = i});
    }
    experts.back().end = i + 1;
    experts.back().bytes += tile.read_bytes();
  }
  return experts;
}

// Puts `experts` into classes, the largest first.
std::vector<ExpertClass> classes_of(std::vector<ExpertTiles>& experts) {
  std::vector<ExpertTiles*> by_size;
  for (ExpertTiles& expert : experts) by_size.push_back(&expert);
  std::stable_sort(by_size.begin(), by_size.end(),
                   [](const auto* a, const auto* b) { return a->bytes > b->bytes; });
  std::vector<ExpertClass> classes;
  for (ExpertTiles* expert : by_size) {
    const auto bytes = static_cast<double>(expert->bytes);
    if (classes.empty() || bytes < kLeastOfSlot * static_cast<double>(classes.back().slot_bytes)) {
      classes.push_back({.slot_bytes = expert->bytes});
    }
    expert->slot_class = static_cast<uint32_t>(classes.size() - 1);
    ++classes.back().experts;
  }
  return classes;
}

// Of a workspace for `limits`, what jobs that decode use. Beside a device with memory of its own
// all of it is: what a prompt drove out would come from the disk again, although the host could
// keep it.
uint64_t reserved_workspace_bytes(const PlanInput& input, const model::BatchLimits& limits) {
  if (input.host_bytes) return workspace_bytes(input, limits);
  model::BatchLimits shared = limits;
  shared.rows = std::min(limits.rows, kSharedJobs);
  shared.logit_rows = std::min(limits.logit_rows, kSharedJobs);
  return workspace_bytes(input, shared);
}

Plan plan_without_tiles(const PlanInput& input, const Division& division) {
  Plan plan;
  plan.limits = limits_within(input, division.workspace);
  plan.workspace_bytes = workspace_bytes(input, plan.limits);
  plan.reserved_workspace_bytes = reserved_workspace_bytes(input, plan.limits);
  plan.yielding_end = plan.reserved_workspace_bytes;
  plan.list = cut_tiles(*input.architecture, input.shards, division.tile);
  plan.ring_slots = division.slots;
  plan.ring_slot_bytes = division.slots > 0 ? plan.list.largest_read_bytes() : 0;
  if (!input.host_bytes) {
    plan.embedding_slot_bytes = embedding_slot_bytes(input);
    plan.embedding_slots = 1;
  }
  plan.pinned_offset.assign(plan.list.tiles.size(), Plan::kStreamed);
  plan.experts = experts_of(plan.list);
  plan.expert_classes = classes_of(plan.experts);
  plan.slab_bytes = plan.slots_offset();
  return plan;
}

uint64_t most_tile_bytes(const PlanInput& input) {
  const uint64_t share = input.host_bytes.value_or(kMostTileBytes * kHostShare) / kHostShare;
  return std::min(kMostTileBytes, share);
}

// The weights of all stages but what is only looked up, about.
uint64_t weight_bytes(const PlanInput& input) {
  uint64_t sum = 0;
  for (size_t i = input.architecture->tied_head ? 0 : 1; i < input.shards.size(); ++i) {
    sum += input.shards[i].file_bytes;
  }
  return sum;
}

// For a budget that the weights do not fit in.
Division division_of(const PlanInput& input, uint64_t budget_bytes, uint64_t block) {
  Division division{};
  division.workspace = std::min(budget_bytes / 4, kMostWorkspaceBytes);
  const model::BatchLimits limits = limits_within(input, division.workspace);
  const uint64_t stays =
      budget_bytes - std::min(reserved_workspace_bytes(input, limits), budget_bytes);
  const uint64_t weights = weight_bytes(input);
  const uint64_t least_tile = (weights > stays ? weights - stays : 0) / kStreamedTiles;
  division.tile = std::clamp(std::min(budget_bytes / 32, least_tile), block,
                             std::max(block, most_tile_bytes(input)));
  division.slots = std::clamp(kLeastSlots * least_tile / block, kLeastSlots, kMostSlots);
  if (input.host_bytes && weights > stays) {
    const uint64_t more = (weights - stays) / kDeviceSlotShare / division.tile;
    division.slots = std::clamp<uint64_t>(more, division.slots, kMostDeviceSlots);
  }
  return division;
}

// In places of their own where there is room for all blocks, else in as many slots as there is.
void place_embedding(const PlanInput& input, uint64_t room_bytes, Plan& plan) {
  const uint64_t slots = room_bytes / std::max<uint64_t>(plan.embedding_slot_bytes, 1);
  number_embedding_blocks(input, plan);
  // Until its tiles are read, the head's embedding is looked up by way of the cache.
  const size_t cached = input.architecture->tied_head || plan.embedding_blocks == 0 ? 1 : 0;
  if (slots >= plan.embedding_blocks + cached) {
    plan.embedding_slots = cached;
    return;
  }
  plan.embedding_slots = std::max<size_t>(slots, 1);
  plan.embedding_blocks = 0;
  plan.first_embedding_block.clear();
}

// Everything stays: no ring. The embedding's blocks stay as well, unless the head holds them, or as
// many of them as there is room for.
Plan full_plan(const PlanInput& input, uint64_t workspace,
               uint64_t budget_bytes = std::numeric_limits<uint64_t>::max()) {
  Plan plan = plan_without_tiles(input, {workspace, most_tile_bytes(input), 0});
  const uint64_t kept_bytes = plan.embedding_offset() + plan.list.total_bytes();
  const uint64_t room = budget_bytes - std::min(kept_bytes, budget_bytes);
  if (!input.host_bytes) place_embedding(input, room, plan);
  plan.slab_bytes = plan.lasting_offset() + plan.embedding_blocks * plan.embedding_slot_bytes;
  for (size_t i = 0; i < plan.list.tiles.size(); ++i) {
    plan.pinned_offset[i] = plan.slab_bytes;
    plan.slab_bytes += plan.list.tiles[i].read_bytes();
  }
  return plan;
}

// The division's plan with room for kSharedJobs, or for as many as the budget has room for.
Plan widened_plan(const PlanInput& input, Division division, uint64_t budget_bytes) {
  Plan plan = plan_without_tiles(input, division);
  if (plan.slab_bytes > budget_bytes || plan.limits.logit_rows >= kSharedJobs) return plan;
  division.workspace = std::min(plan.workspace_bytes + (budget_bytes - plan.slab_bytes),
                                workspace_bytes(input, batch_of(input, kSharedJobs, kSharedJobs)));
  Plan widened = plan_without_tiles(input, division);
  return widened.slab_bytes <= budget_bytes ? widened : plan;
}

// Fills the rest of the budget.
class Pinner {
 public:
  Pinner(Plan& plan, uint64_t budget_bytes) : plan_(plan), budget_bytes_(budget_bytes) {}

  void fill() {
    pin_small_tiles();
    pin_always_used();
    make_slots();
    if (plan_.expert_slots() == 0) pin_part(Part::kExperts);
  }

 private:
  enum class Part { kAlwaysUsed, kExperts };

  uint64_t room() const { return budget_bytes_ - plan_.slab_bytes; }

  bool pin(size_t index) {
    const uint64_t bytes = read_bytes(index);
    if (bytes > room()) return false;
    plan_.pinned_offset[index] = plan_.slab_bytes;
    plan_.slab_bytes += bytes;
    return true;
  }

  // All or none: what stays of them in one place would be missing in another.
  void pin_small_tiles() {
    uint64_t sum = 0;
    for (size_t i = 0; i < plan_.list.tiles.size(); ++i) sum += is_small(i) ? read_bytes(i) : 0;
    if (sum > room() / 2) return;
    for (size_t i = 0; i < plan_.list.tiles.size(); ++i) {
      if (is_small(i)) pin(i);
    }
  }

  std::vector<SpreadTile> streamed_of(Part part) const {
    std::vector<SpreadTile> tiles = streamed_tiles(plan_);
    std::erase_if(tiles, [&](const SpreadTile& tile) {
      return plan_.list.tiles[tile.index].expert.has_value() != (part == Part::kExperts);
    });
    return tiles;
  }

  // Of what every sweep uses, what there is room for: some in the workspace, as evenly spread.
  void pin_always_used() {
    const uint64_t in_workspace = plan_.workspace_bytes - plan_.reserved_workspace_bytes;
    const std::vector<SpreadTile> stay =
        spread(streamed_of(Part::kAlwaysUsed), in_workspace + room());
    for (const SpreadTile& tile : spread(stay, in_workspace)) pin_in_workspace(tile);
    for (const SpreadTile& tile : stay) {
      if (plan_.stays(tile.index)) continue;
      // One lies across the workspace's end, so that nothing is left unused there.
      if (plan_.yielding_end < plan_.workspace_bytes) {
        pin_in_workspace(tile);
        make_room_before_pinned(plan_.yielding_end - plan_.workspace_bytes);
      } else {
        pin(tile.index);
      }
    }
  }

  void pin_in_workspace(const SpreadTile& tile) {
    plan_.pinned_offset[tile.index] = plan_.yielding_end;
    plan_.yielding_end += tile.bytes;
  }

  // Of a part, what there is room for.
  void pin_part(Part part) {
    for (const SpreadTile& tile : spread(streamed_of(part), room())) pin(tile.index);
  }

  // Each class gets slots for the same share of its experts, then what is left holds what it can.
  void make_slots() {
    uint64_t wanted = 0;
    for (const ExpertClass& c : plan_.expert_classes) wanted += c.experts * c.slot_bytes;
    if (wanted == 0) return;
    const double share = std::min(1.0, static_cast<double>(room()) / static_cast<double>(wanted));
    for (ExpertClass& c : plan_.expert_classes) {
      c.slots = static_cast<size_t>(share * static_cast<double>(c.experts));
    }
    uint64_t left = room() - plan_.expert_slot_bytes();
    uint64_t offset = plan_.slots_offset();
    for (ExpertClass& c : plan_.expert_classes) {
      const size_t more = std::min<size_t>(left / c.slot_bytes, c.experts - c.slots);
      c.slots += more;
      left -= more * c.slot_bytes;
      c.offset = offset;
      offset += c.slots * c.slot_bytes;
    }
    make_room_before_pinned(plan_.expert_slot_bytes());
  }

  void make_room_before_pinned(uint64_t bytes) {
    for (size_t i = 0; i < plan_.pinned_offset.size(); ++i) {
      if (plan_.lasts(i)) plan_.pinned_offset[i] += bytes;
    }
    plan_.slab_bytes += bytes;
  }

  uint64_t read_bytes(size_t i) const { return plan_.list.tiles[i].read_bytes(); }
  bool is_small(size_t i) const {
    return !plan_.list.tiles[i].expert && read_bytes(i) <= kSmallTileBytes;
  }

  Plan& plan_;
  uint64_t budget_bytes_;
};

}  // namespace

size_t embedding_blocks(const PlanInput& input) {
  Plan plan;
  number_embedding_blocks(input, plan);
  return plan.embedding_blocks;
}

uint64_t embedding_slot_bytes(const PlanInput& input) {
  return largest_block_bytes(input.shards.first(1));
}

std::vector<SpreadTile> streamed_tiles(const Plan& plan) {
  std::vector<SpreadTile> streamed;
  for (size_t i = 0; i < plan.list.tiles.size(); ++i) {
    if (!plan.stays(i)) streamed.push_back({i, plan.list.tiles[i].read_bytes()});
  }
  return streamed;
}

std::vector<SpreadTile> spread(std::span<const SpreadTile> tiles, uint64_t room_bytes) {
  uint64_t sum = 0;
  for (const SpreadTile& tile : tiles) sum += tile.bytes;
  std::vector<SpreadTile> chosen;
  std::vector<SpreadTile> others;
  const double share =
      static_cast<double>(room_bytes) / static_cast<double>(std::max<uint64_t>(sum, 1));
  double due = 0;
  const auto choose = [&](const SpreadTile& tile) {
    if (tile.bytes > room_bytes) return false;
    chosen.push_back(tile);
    room_bytes -= tile.bytes;
    return true;
  };
  for (const SpreadTile& tile : tiles) {
    const auto bytes = static_cast<double>(tile.bytes);
    due += share * bytes;
    if (due >= bytes / 2 && choose(tile)) {
      due -= bytes;
    } else {
      others.push_back(tile);
    }
  }
  for (const SpreadTile& tile : others) choose(tile);
  return chosen;
}

uint64_t Plan::pinned_bytes() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < list.tiles.size(); ++i) {
    if (stays(i)) sum += list.tiles[i].read_bytes();
  }
  return sum;
}

size_t Plan::expert_slots() const {
  size_t sum = 0;
  for (const ExpertClass& c : expert_classes) sum += c.slots;
  return sum;
}

uint64_t Plan::expert_slot_bytes() const {
  uint64_t sum = 0;
  for (const ExpertClass& c : expert_classes) sum += c.slots * c.slot_bytes;
  return sum;
}

uint64_t Plan::slot_offset(uint32_t slot_class, size_t slot) const {
  for (uint32_t c = 0; c < slot_class; ++c) slot -= expert_classes[c].slots;
  const ExpertClass& c = expert_classes[slot_class];
  return c.offset + slot * c.slot_bytes;
}

ExpertCacheShape Plan::expert_cache_shape() const {
  ExpertCacheShape shape;
  for (const ExpertTiles& expert : experts) {
    shape.layer_of.push_back(expert.layer);
    shape.class_of.push_back(expert.slot_class);
  }
  for (const ExpertClass& c : expert_classes) {
    shape.slots.push_back(static_cast<uint32_t>(c.slots));
  }
  return shape;
}

size_t Plan::first_expert_of(uint32_t stage) const {
  const auto first = std::lower_bound(
      experts.begin(), experts.end(), stage,
      [](const ExpertTiles& expert, uint32_t wanted) { return expert.stage < wanted; });
  return static_cast<size_t>(first - experts.begin());
}

uint64_t full_budget_bytes(const PlanInput& input) {
  return full_plan(input, kMostWorkspaceBytes).slab_bytes;
}

Unexpected too_small(bool of_vram, uint64_t budget_bytes, uint64_t least_bytes) {
  const std::string least = std::to_string((least_bytes + kKiB - 1) / kKiB);
  return Unexpected(
      ErrorCode::kConfig,
      std::string("a ") + (of_vram ? "VRAM" : "RAM") + " budget of " + format_size(budget_bytes) +
          " is too small for this model, which needs at least " + least + " KiB",
      std::string("give --") + (of_vram ? "vram" : "ram") + " at least " + least + "K");
}

Result<Plan> make_plan(const PlanInput& input, uint64_t budget_bytes) {
  Plan full = full_plan(input, kMostWorkspaceBytes);
  if (full.slab_bytes <= budget_bytes) return full;
  // Weights that fit stay, even if what is left makes a small batch.
  const uint64_t kept_bytes = full.slab_bytes - full.workspace_bytes;
  if (kept_bytes + least_full_workspace(input) <= budget_bytes) {
    full = full_plan(input, budget_bytes - kept_bytes);
    if (full.slab_bytes <= budget_bytes) return full;
  }
  // The same without all of an embedding that is looked up only.
  const uint64_t tiles_bytes = full.list.total_bytes();
  const uint64_t room = budget_bytes - std::min(tiles_bytes, budget_bytes);
  const uint64_t least_workspace = least_full_workspace(input);
  full = full_plan(input, std::max(std::min(room / 4, kMostWorkspaceBytes), least_workspace),
                   budget_bytes);
  if (full.slab_bytes <= budget_bytes) return full;

  const uint64_t block = largest_block_bytes(input.shards);
  const std::array<Division, 4> divisions{{
      division_of(input, budget_bytes, block),
      {budget_bytes / 4, block, 3},
      {budget_bytes / 8, block, 2},
      {0, block, 2},
  }};
  for (const Division& division : divisions) {
    Plan plan = widened_plan(input, division, budget_bytes);
    if (plan.slab_bytes > budget_bytes) continue;
    Pinner(plan, budget_bytes).fill();
    return plan;
  }
  const uint64_t least = plan_without_tiles(input, divisions.back()).slab_bytes;
  return too_small(input.host_bytes.has_value(), budget_bytes, least);
}

}  // namespace airllm::stream

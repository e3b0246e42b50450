#include "engine/stream/plan.h"

#include <algorithm>
#include <array>

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
constexpr model::BatchLimits kLeastOfFullPlan{2, 2};
constexpr uint64_t kMostWorkspaceBytes = 128 * kMiB;
// Larger tiles gain no reading speed, and make cancellation and the ring coarser.
constexpr uint64_t kMostTileBytes = 4 * kMiB;
// Norms and biases: too small to be worth a read of their own in every sweep.
constexpr uint64_t kSmallTileBytes = 64 * kKiB;

// Blocks of what is looked up by row, but for an embedding that the head holds.
size_t embedding_blocks(const PlanInput& input) {
  const model::StageSpec stage = model::stages(*input.architecture).front();
  size_t blocks = 0;
  for (const model::Step& step : stage.steps) {
    if (step.tensor == model::Step::kNoTensor || step.is_driven()) continue;
    if (step.tensor == 0 && input.architecture->tied_head) continue;
    blocks += input.shards.front().tensors[step.tensor].block_checksums.size();
  }
  return blocks;
}

uint64_t embedding_slot_bytes(const PlanInput& input) {
  return largest_block_bytes(input.shards.first(1));
}

uint64_t workspace_bytes(const PlanInput& input, const model::BatchLimits& limits) {
  return round_up(model::ForwardPass::workspace_bytes(*input.architecture, limits), kPageBytes);
}

// The largest batch whose workspace stays within `bytes`, at least one row.
model::BatchLimits limits_within(const model::Architecture& architecture, uint64_t bytes) {
  constexpr uint64_t kAlignment = 64;  // of each part of the workspace
  const model::BatchLimits one{1, 1};
  const model::BatchLimits two_rows{2, 1};
  const uint64_t least = model::ForwardPass::workspace_bytes(architecture, one);
  const uint64_t row =
      model::ForwardPass::workspace_bytes(architecture, two_rows) - least + kAlignment;
  const uint64_t logit_row = architecture.vocabulary * sizeof(float) + kAlignment;
  uint64_t spare = bytes > least ? bytes - least : 0;
  const uint64_t shared = std::min(spare / (row + logit_row), kSharedJobs - 1);
  spare -= shared * (row + logit_row);
  // Of the rest, a quarter for logits: most rows of a prompt want none.
  model::BatchLimits limits;
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

Plan plan_without_tiles(const PlanInput& input, const Division& division) {
  Plan plan;
  plan.limits = limits_within(*input.architecture, division.workspace);
  plan.workspace_bytes = workspace_bytes(input, plan.limits);
  plan.list = cut_tiles(*input.architecture, input.shards, division.tile);
  plan.ring_slots = division.slots;
  plan.ring_slot_bytes = division.slots > 0 ? plan.list.largest_read_bytes() : 0;
  plan.embedding_slot_bytes = embedding_slot_bytes(input);
  plan.embedding_slots = 1;
  plan.pinned_offset.assign(plan.list.tiles.size(), Plan::kStreamed);
  plan.slab_bytes = plan.embedding_offset() + plan.embedding_slot_bytes;
  return plan;
}

// Everything stays: no ring. The embedding's blocks stay as well, unless the head holds them.
Plan full_plan(const PlanInput& input, uint64_t workspace) {
  Plan plan = plan_without_tiles(input, {workspace, kMostTileBytes, 0});
  plan.embedding_slots = std::max<size_t>(embedding_blocks(input), 1);
  plan.slab_bytes = plan.embedding_offset() + plan.embedding_slots * plan.embedding_slot_bytes;
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
                                workspace_bytes(input, {kSharedJobs, kSharedJobs}));
  Plan widened = plan_without_tiles(input, division);
  return widened.slab_bytes <= budget_bytes ? widened : plan;
}

class Pinner {
 public:
  Pinner(Plan& plan, uint64_t budget_bytes) : plan_(plan), budget_bytes_(budget_bytes) {}

  uint64_t room() const { return budget_bytes_ - plan_.slab_bytes; }

  bool pin(size_t index) {
    const uint64_t bytes = plan_.list.tiles[index].read_bytes();
    if (bytes > room()) return false;
    plan_.pinned_offset[index] = plan_.slab_bytes;
    plan_.slab_bytes += bytes;
    return true;
  }

  void pin_small_tiles() {
    for (size_t i = 0; i < plan_.list.tiles.size(); ++i) {
      if (plan_.list.tiles[i].read_bytes() <= kSmallTileBytes && !pin(i)) return;
    }
  }

  // Pins the same share of every stretch of the order of use (Bresenham's line), so that reading
  // keeps an even pace beside multiplying.
  void pin_evenly() {
    uint64_t rest = 0;
    for (size_t i = 0; i < plan_.list.tiles.size(); ++i) {
      if (is_streamed(i)) rest += plan_.list.tiles[i].read_bytes();
    }
    if (rest == 0) return;
    const double share = static_cast<double>(room()) / static_cast<double>(rest);
    double due = 0;
    for (size_t i = 0; i < plan_.list.tiles.size(); ++i) {
      if (!is_streamed(i)) continue;
      const auto bytes = static_cast<double>(plan_.list.tiles[i].read_bytes());
      due += share * bytes;
      if (due >= bytes / 2 && pin(i)) due -= bytes;
    }
  }

 private:
  bool is_streamed(size_t i) const { return plan_.pinned_offset[i] == Plan::kStreamed; }

  Plan& plan_;
  uint64_t budget_bytes_;
};

}  // namespace

uint64_t Plan::pinned_bytes() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < list.tiles.size(); ++i) {
    if (pinned_offset[i] != kStreamed) sum += list.tiles[i].read_bytes();
  }
  return sum;
}

uint64_t full_budget_bytes(const PlanInput& input) {
  return full_plan(input, kMostWorkspaceBytes).slab_bytes;
}

Result<Plan> make_plan(const PlanInput& input, uint64_t budget_bytes) {
  Plan full = full_plan(input, kMostWorkspaceBytes);
  if (full.slab_bytes <= budget_bytes) return full;
  // Weights that fit stay, even if what is left makes a small batch.
  const uint64_t kept_bytes = full.slab_bytes - full.workspace_bytes;
  if (kept_bytes + workspace_bytes(input, kLeastOfFullPlan) <= budget_bytes) {
    full = full_plan(input, budget_bytes - kept_bytes);
    if (full.slab_bytes <= budget_bytes) return full;
  }

  const uint64_t block = largest_block_bytes(input.shards);
  const uint64_t tile = std::clamp(budget_bytes / 32, block, std::max(block, kMostTileBytes));
  const std::array<Division, 4> divisions{{
      {std::min(budget_bytes / 4, kMostWorkspaceBytes), tile, 4},
      {budget_bytes / 4, block, 3},
      {budget_bytes / 8, block, 2},
      {0, block, 2},
  }};
  for (const Division& division : divisions) {
    Plan plan = widened_plan(input, division, budget_bytes);
    if (plan.slab_bytes > budget_bytes) continue;
    Pinner pinner(plan, budget_bytes);
    pinner.pin_small_tiles();
    pinner.pin_evenly();
    return plan;
  }
  const uint64_t least = plan_without_tiles(input, divisions.back()).slab_bytes;
  return Unexpected(ErrorCode::kConfig,
                    "a RAM budget of " + format_size(budget_bytes) +
                        " is too small for this model, which needs at least " +
                        std::to_string((least + kKiB - 1) / kKiB) + " KiB",
                    "give --ram at least " + std::to_string((least + kKiB - 1) / kKiB) + "K");
}

}  // namespace airllm::stream

#include "engine/stream/plan.h"

#include <gtest/gtest.h>

#include "tests/engine/stream/memory_model.h"

namespace airllm::stream {
namespace {

using testing::MemoryModel;
using testing::tiny_architecture;

model::Architecture wide_architecture() {
  model::Architecture a = tiny_architecture(true);
  a.layers = 12;
  a.kinds.resize(a.layers, a.kinds.front());
  a.hidden = 160;
  a.heads = 4;
  a.head_dim = 40;
  a.intermediate = 432;
  a.vocabulary = 3000;
  return a;
}

PlanInput input_of(const MemoryModel& model) { return {&model.architecture, model.shards}; }

TEST(TileList, CoversEveryRowOfEveryWeightOnce) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const TileList list = cut_tiles(model.architecture, model.shards, 64 * 1024);
  uint64_t bytes = 0;
  uint64_t rows_before = 0;
  for (size_t i = 0; i < list.tiles.size(); ++i) {
    const Tile& tile = list.tiles[i];
    const store::ShardTensor& tensor = model.shards[tile.shard].tensors[tile.tensor];
    const bool first =
        i == 0 || list.tiles[i - 1].stage != tile.stage || list.tiles[i - 1].step != tile.step;
    EXPECT_EQ(tile.row_begin, first ? 0 : rows_before);
    rows_before = tile.row_begin + tile.rows;
    EXPECT_LE(rows_before, tensor.rows);
    EXPECT_EQ(tile.read_offset() % kPageBytes, 0U);
    EXPECT_EQ(tile.read_bytes() % kPageBytes, 0U);
    EXPECT_GE(tile.read_offset() + tile.read_bytes(), tile.data_offset + tile.data_bytes);
    bytes += tile.data_bytes;
  }
  uint64_t expected = 0;  // tied: the embedding is in the list as the head
  for (const store::Shard& shard : model.shards) {
    for (const store::ShardTensor& tensor : shard.tensors) expected += tensor.bytes();
  }
  EXPECT_EQ(bytes, expected);
}

TEST(Plan, PinsEverythingWhenItFits) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const uint64_t full = full_budget_bytes(input_of(model));
  const Result<Plan> plan = make_plan(input_of(model), full);
  ASSERT_TRUE(plan);
  EXPECT_FALSE(plan->streams());
  EXPECT_EQ(plan->pinned_bytes(), plan->list.total_bytes());
  EXPECT_LE(plan->slab_bytes, full);
}

TEST(Plan, WeightsThatFitStayEvenIfTheBatchGetsSmall) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const Plan full = *make_plan(input_of(model), full_budget_bytes(input_of(model)));
  const uint64_t kept = full.slab_bytes - full.workspace_bytes;
  for (const uint64_t spare : {64 * kKiB, 256 * kKiB, 1 * kMiB, full.workspace_bytes - 1}) {
    const Result<Plan> plan = make_plan(input_of(model), kept + spare);
    ASSERT_TRUE(plan);
    EXPECT_FALSE(plan->streams()) << spare;
    EXPECT_LE(plan->slab_bytes, kept + spare);
    EXPECT_GE(plan->limits.logit_rows, 2U);
  }
}

TEST(Plan, SeveralJobsFitASweepOfEveryBudget) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  for (uint64_t budget = 512 * kKiB; budget < 64 * kMiB; budget += budget / 7) {
    const Result<Plan> plan = make_plan(input_of(model), budget);
    ASSERT_TRUE(plan) << format_size(budget) << ": " << plan.error().message;
    EXPECT_GE(plan->limits.logit_rows, budget < 768 * kKiB ? 2U : 8U) << format_size(budget);
  }
}

TEST(Plan, StaysWithinEveryBudgetAndPinsMoreOfALargerOne) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const uint64_t full = full_budget_bytes(input_of(model));
  const uint64_t weights = make_plan(input_of(model), full)->list.total_bytes();
  for (uint64_t budget = 512 * kKiB; budget < weights; budget += budget / 7) {
    const Result<Plan> plan = make_plan(input_of(model), budget);
    ASSERT_TRUE(plan) << format_size(budget) << ": " << plan.error().message;
    EXPECT_LE(plan->slab_bytes, budget);
    EXPECT_TRUE(plan->streams());
    EXPECT_GE(plan->limits.rows, 1U);
    EXPECT_GE(plan->ring_slots, 2U);
    EXPECT_GE(plan->ring_slot_bytes, plan->list.largest_read_bytes());
    // What is left unused is less than what one more tile would take, or all is pinned.
    const uint64_t streamed = plan->list.total_bytes() - plan->pinned_bytes();
    EXPECT_TRUE(budget - plan->slab_bytes < 2 * plan->list.largest_read_bytes() ||
                streamed < 2 * plan->list.largest_read_bytes());
  }
}

TEST(Plan, PlacesDoNotOverlap) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const Result<Plan> plan = make_plan(input_of(model), 6 * kMiB);
  ASSERT_TRUE(plan);
  const uint64_t workspace = plan->workspace_bytes;
  const uint64_t ring = plan->ring_offset();
  std::vector<std::pair<uint64_t, uint64_t>> places{{ring, plan->lasting_offset() - ring}};
  for (size_t i = 0; i < plan->list.tiles.size(); ++i) {
    if (!plan->stays(i)) continue;
    EXPECT_EQ(plan->pinned_offset[i] % kPageBytes, 0U);
    EXPECT_EQ(plan->yields(i), plan->pinned_offset[i] < workspace);
    places.emplace_back(plan->pinned_offset[i], plan->list.tiles[i].read_bytes());
  }
  std::sort(places.begin(), places.end());
  EXPECT_LT(places.front().first, workspace);  // some lie there
  uint64_t end = plan->reserved_workspace_bytes;
  for (const auto& [offset, bytes] : places) {
    EXPECT_GE(offset, end);
    end = offset + bytes;
  }
  EXPECT_EQ(end, plan->slab_bytes);
}

TEST(Plan, SpreadsWhatStreamsOverTheLayers) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const uint64_t full = full_budget_bytes(input_of(model));
  const Result<Plan> plan = make_plan(input_of(model), full / 3);
  ASSERT_TRUE(plan);
  std::vector<uint64_t> streamed(model.shards.size());
  for (size_t i = 0; i < plan->list.tiles.size(); ++i) {
    if (plan->pinned_offset[i] != Plan::kStreamed) continue;
    streamed[plan->list.tiles[i].stage] += plan->list.tiles[i].read_bytes();
  }
  const auto [least, most] = std::minmax_element(streamed.begin() + 1, streamed.end() - 1);
  EXPECT_LE(*most - *least, 2 * plan->list.largest_read_bytes());
}

TEST(Plan, ABudgetBelowTheLeastIsRefusedWithTheLeast) {
  const MemoryModel model(wide_architecture(), kernels::NumberFormat::kF32, 1);
  const Result<Plan> plan = make_plan(input_of(model), 64 * kKiB);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::kConfig);
  EXPECT_NE(plan.error().message.find("64 KiB"), std::string::npos);
  // The remedy's budget works.
  const std::string& remedy = plan.error().remedy;
  const Result<uint64_t> least = parse_size(remedy.substr(remedy.rfind(' ') + 1));
  ASSERT_TRUE(least) << remedy;
  EXPECT_TRUE(make_plan(input_of(model), *least));
  EXPECT_LE(*least, 512 * kKiB);
}

}  // namespace
}  // namespace airllm::stream

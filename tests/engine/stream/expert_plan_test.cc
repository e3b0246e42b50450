// How a plan divides memory between what every sweep uses and experts.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/units.h"
#include "engine/stream/plan.h"
#include "tests/engine/stream/outline_model.h"

namespace airllm::stream {
namespace {

using testing::OutlineModel;

model::Architecture moe_architecture(const std::string& more = "") {
  return model::parse_config(
             R"({"model_type": "qwen2_moe", "num_hidden_layers": 6, "hidden_size": 512,
             "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024,
             "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512,
             "vocab_size": 4000, "num_experts": 16, "num_experts_per_tok": 2,
             "decoder_sparse_step": 1, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6)" +
                 more + "}",
             "config")
      .value();
}

template <typename Check>
void for_each_budget(const OutlineModel& model, const Check& check) {
  const uint64_t full = full_budget_bytes(model.input());
  for (uint64_t percent = 2; percent <= 110; percent += 3) {
    const uint64_t budget = full / 100 * percent;
    const Result<Plan> plan = make_plan(model.input(), budget);
    if (!plan) continue;
    SCOPED_TRACE(std::to_string(percent) + " % of " + format_size(full));
    check(*plan, budget);
  }
}

TEST(ExpertPlan, WhatEverySweepUsesComesFirst) {
  const OutlineModel model(moe_architecture(), kernels::NumberFormat::kBF16);
  size_t with_slots = 0;
  for_each_budget(model, [&](const Plan& plan, uint64_t budget) {
    EXPECT_LE(plan.slab_bytes, budget);
    if (plan.expert_slots() == 0) return;
    ++with_slots;
    for (size_t i = 0; i < plan.list.tiles.size(); ++i) {
      EXPECT_EQ(!plan.stays(i), plan.list.tiles[i].expert.has_value());
    }
  });
  EXPECT_GT(with_slots, 15U);
}

TEST(ExpertPlan, NoRoomForAnExpertIsLeft) {
  const OutlineModel model(moe_architecture(), kernels::NumberFormat::kBF16);
  for_each_budget(model, [](const Plan& plan, uint64_t budget) {
    if (!plan.streams()) return;
    ASSERT_EQ(plan.experts.size(), 6U * 16);
    const uint64_t unused = budget - plan.slab_bytes;
    if (plan.expert_slots() == 0) {
      EXPECT_LE(unused, 2 * plan.list.largest_read_bytes());
    } else if (plan.expert_slots() < plan.experts.size()) {
      EXPECT_LT(unused, plan.expert_classes.front().slot_bytes);
    }
  });
}

// What outlasts the process has no trace of what prompts used.
TEST(ExpertPlan, SlotsLieBeforeWhatLastsAndHoldWholeExperts) {
  const OutlineModel model(moe_architecture(), kernels::NumberFormat::kF32);
  for_each_budget(model, [](const Plan& plan, uint64_t) {
    if (plan.expert_slots() == 0) return;
    uint64_t end = plan.embedding_offset() + plan.embedding_slots * plan.embedding_slot_bytes;
    for (uint32_t c = 0; c < plan.expert_classes.size(); ++c) {
      const ExpertClass& slots = plan.expert_classes[c];
      EXPECT_EQ(slots.offset, end);
      EXPECT_EQ(slots.slot_bytes % kPageBytes, 0U);
      end += slots.slots * slots.slot_bytes;
    }
    EXPECT_EQ(end, plan.lasting_offset());
    uint64_t lasting = 0;
    for (size_t i = 0; i < plan.list.tiles.size(); ++i) {
      if (!plan.stays(i)) continue;
      EXPECT_TRUE(plan.yields(i) || plan.pinned_offset[i] >= end);
      lasting += plan.lasts(i) ? plan.list.tiles[i].read_bytes() : 0;
    }
    EXPECT_EQ(plan.lasting_bytes(), lasting);
    for (const ExpertTiles& expert : plan.experts) {
      uint64_t bytes = 0;
      for (size_t i = expert.begin; i < expert.end; ++i) {
        EXPECT_EQ(plan.list.tiles[i].expert, expert.expert);
        EXPECT_EQ(plan.list.tiles[i].stage, expert.stage);
        bytes += plan.list.tiles[i].read_bytes();
      }
      EXPECT_EQ(bytes, expert.bytes);
      EXPECT_LE(bytes, plan.expert_classes[expert.slot_class].slot_bytes);
    }
  });
}

TEST(ExpertPlan, MoreMemoryHoldsMoreExperts) {
  const OutlineModel model(moe_architecture(), kernels::NumberFormat::kBF16);
  size_t last = 0;
  for_each_budget(model, [&](const Plan& plan, uint64_t) {
    // A larger batch may take the room of an expert.
    EXPECT_GE(plan.room_for_experts() + 1, last);
    last = plan.room_for_experts();
  });
  EXPECT_EQ(last, 6U * 16);
}

TEST(ExpertPlan, EverythingIsPinnedWhereItFits) {
  const OutlineModel model(moe_architecture(), kernels::NumberFormat::kBF16);
  const Plan plan = make_plan(model.input(), full_budget_bytes(model.input())).value();
  EXPECT_FALSE(plan.streams());
  EXPECT_EQ(plan.expert_slots(), 0U);
  EXPECT_EQ(plan.room_for_experts(), 6U * 16);
  EXPECT_EQ(plan.pinned_bytes(), plan.list.total_bytes());
}

// Layers whose experts are f32 among others of bf16, as where a checkpoint keeps some unquantized.
TEST(ExpertPlan, ExpertsOfSeveralSizesShareByWhatTheyTake) {
  OutlineModel wide(moe_architecture(), kernels::NumberFormat::kF32);
  OutlineModel model(moe_architecture(), kernels::NumberFormat::kBF16);
  model.shards[1] = wide.shards[1];
  model.shards[2] = wide.shards[2];
  size_t compared = 0;
  for_each_budget(model, [&](const Plan& plan, uint64_t budget) {
    EXPECT_LE(plan.slab_bytes, budget);
    ASSERT_EQ(plan.expert_classes.size(), 2U);
    const ExpertClass &large = plan.expert_classes[0], &small = plan.expert_classes[1];
    EXPECT_EQ(large.experts, 2U * 16);
    EXPECT_EQ(small.experts, 4U * 16);
    if (plan.expert_slots() == 0) return;
    ++compared;
    EXPECT_NEAR(static_cast<double>(large.slots) / 2, static_cast<double>(small.slots) / 4, 1.5);
    if (plan.expert_slots() < plan.experts.size()) {
      EXPECT_LT(budget - plan.slab_bytes, large.slot_bytes);
    }
  });
  EXPECT_GT(compared, 10U);
}

TEST(ExpertPlan, ADenseModelHasNoSlots) {
  const OutlineModel model(
      model::parse_config(
          R"({"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256,
          "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512,
          "vocab_size": 2000, "max_position_embeddings": 256, "rms_norm_eps": 1e-5})",
          "config")
          .value(),
      kernels::NumberFormat::kF32);
  for_each_budget(model, [](const Plan& plan, uint64_t) {
    EXPECT_TRUE(plan.experts.empty());
    EXPECT_EQ(plan.room_for_experts(), 0U);
  });
}

}  // namespace
}  // namespace airllm::stream

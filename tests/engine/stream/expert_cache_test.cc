#include "engine/stream/expert_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <set>
#include <string>

#include "tests/engine/stream/routing_trace.h"

namespace airllm::stream {
namespace {

using testing::RoutingTrace;

constexpr uint32_t kNone = ExpertCache::kNone;

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t below(uint32_t end) { return static_cast<uint32_t>(engine_() % end); }

 private:
  std::mt19937 engine_;
};

// All of one class.
ExpertCacheShape shape_of(uint32_t layers, uint32_t experts, uint32_t slots) {
  ExpertCacheShape shape;
  for (uint32_t e = 0; e < layers * experts; ++e) shape.layer_of.push_back(e / experts);
  shape.class_of.assign(layers * experts, 0);
  shape.slots = {slots};
  return shape;
}

std::vector<bool> used_of(uint32_t experts, const std::set<uint32_t>& used) {
  std::vector<bool> out(experts);
  for (const uint32_t e : used) out[e] = true;
  return out;
}

std::set<uint32_t> kept_of(const ExpertCache& cache, uint32_t experts) {
  std::set<uint32_t> kept;
  for (uint32_t e = 0; e < experts; ++e) {
    if (cache.slot_of(e) != kNone) kept.insert(e);
  }
  return kept;
}

TEST(ExpertCache, FreeSlotsAreFilledAndWhatIsThereStays) {
  ExpertCache cache(shape_of(2, 4, 3));
  EXPECT_EQ(cache.choose(0, used_of(4, {1, 3})).size(), 2U);
  EXPECT_TRUE(cache.choose(0, used_of(4, {1, 3})).empty());
  const std::vector<ExpertCache::Placed> placed = cache.choose(1, used_of(4, {0}));
  ASSERT_EQ(placed.size(), 1U);
  EXPECT_EQ(placed[0].expert, 4U);
  EXPECT_EQ(placed[0].evicted, kNone);
  EXPECT_EQ(kept_of(cache, 8), (std::set<uint32_t>{1, 3, 4}));
}

TEST(ExpertCache, WithoutSlotsNothingIsKept) {
  ExpertCache cache(shape_of(2, 4, 0));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(cache.choose(1, used_of(4, {1, 2})).empty());
}

TEST(ExpertCache, WhatIsUsedOftenStaysAndWhatIsUsedOncePasses) {
  ExpertCache cache(shape_of(1, 8, 3));
  for (uint32_t i = 0; i < 40; ++i) cache.choose(0, used_of(8, {0, 1, 2 + i % 6}));
  EXPECT_NE(cache.slot_of(0), kNone);
  EXPECT_NE(cache.slot_of(1), kNone);
}

TEST(ExpertCache, FollowsAnotherSubject) {
  ExpertCache cache(shape_of(1, 8, 2));
  for (int i = 0; i < 200; ++i) cache.choose(0, used_of(8, {0, 1}));
  for (int i = 0; i < 30; ++i) cache.choose(0, used_of(8, {5, 6}));
  EXPECT_EQ(kept_of(cache, 8), (std::set<uint32_t>{5, 6}));
}

// A layer that chooses the same in each sweep gets the slots of one that does not.
TEST(ExpertCache, SlotsGoWhereTheySaveMost) {
  constexpr uint32_t kExperts = 16;
  ExpertCache cache(shape_of(2, kExperts, 5));
  Random random(3);
  uint64_t hits = 0;
  for (int sweep = 0; sweep < 300; ++sweep) {
    cache.choose(0, used_of(kExperts, {random.below(16), random.below(16), random.below(16)}));
    if (sweep >= 100) {
      for (const uint32_t e : {2U, 5U, 7U, 11U}) hits += cache.slot_of(kExperts + e) != kNone;
    }
    cache.choose(1, used_of(kExperts, {2, 5, 7, 11}));
  }
  EXPECT_EQ(hits, 200U * 4);
}

TEST(ExpertCache, APromptThatUsesAllDoesNotFlushWhatIsUsedOften) {
  constexpr uint32_t kExperts = 16, kLayers = 4;
  ExpertCache cache(shape_of(kLayers, kExperts, 16));
  const std::vector<bool> often = used_of(kExperts, {1, 6, 9, 12});
  const std::vector<bool> all(kExperts, true);
  const auto sweep = [&](const std::vector<bool>& used) {
    for (uint32_t layer = 0; layer < kLayers; ++layer) cache.choose(layer, used);
  };
  for (int i = 0; i < 50; ++i) sweep(often);
  const std::set<uint32_t> kept = kept_of(cache, kLayers * kExperts);
  EXPECT_EQ(kept.size(), 16U);
  for (int i = 0; i < 8; ++i) sweep(all);
  EXPECT_EQ(kept_of(cache, kLayers * kExperts), kept);
}

TEST(ExpertCache, ExpertsTakeSlotsOfTheirClassOnly) {
  ExpertCacheShape shape = shape_of(2, 4, 0);
  shape.class_of = {0, 0, 0, 0, 1, 1, 1, 1};
  shape.slots = {1, 2};
  ExpertCache cache(shape);
  for (int i = 0; i < 10; ++i) {
    cache.choose(0, used_of(4, {0, 1, 2}));
    cache.choose(1, used_of(4, {1, 2, 3}));
  }
  const std::set<uint32_t> kept = kept_of(cache, 8);
  EXPECT_EQ(kept.size(), 3U);
  for (const uint32_t e : kept) {
    EXPECT_EQ(cache.slot_of(e) == 0, e < 4) << e;
  }
}

TEST(ExpertCache, WhatIsBusyKeepsItsSlot) {
  ExpertCache cache(shape_of(1, 8, 2));
  cache.choose(0, used_of(8, {0, 1}));
  const std::vector<uint32_t> busy{0, 1};
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(cache.choose(0, used_of(8, {5, 6}), busy).empty());
  }
  EXPECT_EQ(kept_of(cache, 8), (std::set<uint32_t>{0, 1}));
  EXPECT_EQ(cache.choose(0, used_of(8, {5, 6})).size(), 2U);
}

// Whatever is asked: a slot holds one expert, what is used now keeps its slot, what is told is what
// has happened, and the same questions get the same answers.
TEST(ExpertCache, KeepsItsBooksInOrder) {
  Random random(11);
  for (int round = 0; round < 30; ++round) {
    const uint32_t layers = 1 + random.below(5), experts = 1 + random.below(20);
    const uint32_t slots = random.below(layers * experts + 3);
    ExpertCacheShape shape = shape_of(layers, experts, 0);
    shape.slots = {slots, random.below(6)};
    for (uint32_t& c : shape.class_of) c = random.below(4) == 0 ? 1 : 0;
    ExpertCache cache(shape), twin(shape);
    std::vector<uint32_t> holds(shape.slots[0] + shape.slots[1], kNone);
    for (int step = 0; step < 60; ++step) {
      const uint32_t layer = static_cast<uint32_t>(step) % layers;
      std::vector<bool> used(experts);
      const uint32_t odds = 1 + random.below(6);
      for (uint32_t e = 0; e < experts; ++e) used[e] = random.below(odds) == 0;
      std::set<uint32_t> kept_before;
      for (uint32_t e = 0; e < experts; ++e) {
        const uint32_t expert = layer * experts + e;
        if (used[e] && cache.slot_of(expert) != kNone) kept_before.insert(expert);
      }
      const auto placed = cache.choose(layer, used);
      const auto same = twin.choose(layer, used);
      ASSERT_EQ(placed.size(), same.size());
      for (size_t i = 0; i < placed.size(); ++i) {
        EXPECT_EQ(placed[i].expert, same[i].expert);
        EXPECT_EQ(placed[i].slot, same[i].slot);
        ASSERT_LT(placed[i].slot, holds.size());
        EXPECT_EQ(holds[placed[i].slot], placed[i].evicted);
        EXPECT_EQ(placed[i].expert / experts, layer);
        EXPECT_TRUE(used[placed[i].expert % experts]);
        EXPECT_EQ(placed[i].slot >= slots, shape.class_of[placed[i].expert] == 1);
        EXPECT_TRUE(i == 0 || placed[i - 1].expert < placed[i].expert);
        holds[placed[i].slot] = placed[i].expert;
      }
      for (const uint32_t expert : kept_before) EXPECT_NE(cache.slot_of(expert), kNone);
      size_t held = 0;
      for (uint32_t slot = 0; slot < holds.size(); ++slot) {
        if (holds[slot] == kNone) continue;
        ++held;
        EXPECT_EQ(cache.slot_of(holds[slot]), slot);
      }
      EXPECT_EQ(kept_of(cache, layers * experts).size(), held);
    }
  }
}

// On routing that was learned. Where a sweep's choice depends on nothing that was seen before, no
// policy has so many: docs/performance.md has the figures.
TEST(ExpertCache, HitsWhatAnOptimalCacheHitsAndNotLessThanSimplerOnes) {
  const std::vector<RoutingTrace> traces =
      testing::load_traces(AIRLLM_SOURCE_DIR "/tests/engine/stream/traces");
  ASSERT_GE(traces.size(), 3U);
  constexpr std::array<double, 3> kLeast{0.87, 0.95, 0.99};  // of Belady's hits
  for (const RoutingTrace& trace : traces) {
    for (const uint32_t quarters : {1U, 2U, 3U}) {
      const uint32_t slots = trace.layers * trace.experts * quarters / 4;
      const uint64_t hits = testing::cache_hits(trace, slots);
      const uint64_t best = testing::belady_hits(trace, slots);
      const uint64_t simple =
          std::max(testing::lru_hits(trace, slots), testing::lfu_hits(trace, slots));
      SCOPED_TRACE(trace.name + ", " + std::to_string(slots) + " slots");
      EXPECT_LE(hits, best);
      EXPECT_GE(static_cast<double>(hits), kLeast[quarters - 1] * static_cast<double>(best));
      EXPECT_GE(static_cast<double>(hits), 0.995 * static_cast<double>(simple));
    }
  }
}

}  // namespace
}  // namespace airllm::stream

// What a plan promises for any model and any budget: what a sweep reads, against an optimal cache
// of as much memory, and how evenly it reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <set>

#include "base/units.h"
#include "engine/stream/plan.h"
#include "tests/engine/stream/outline_model.h"

namespace airllm::stream {
namespace {

using testing::OutlineModel;

// What the best policy reads in a sweep, on average, with `capacity_bytes` for the tile in use and
// all that is kept: Belady's, which drops what is used again last. In a cyclic scan that is the
// tile that was used last before the present one.
class BeladyCache {
 public:
  BeladyCache(const std::vector<Tile>& tiles, uint64_t capacity_bytes)
      : tiles_(tiles), room_(capacity_bytes) {}

  uint64_t bytes_per_sweep() {
    constexpr int kWarmUp = 3;
    constexpr int kMeasured = 16;  // what is dropped moves through the tiles from sweep to sweep
    for (int i = 0; i < kWarmUp; ++i) sweep();
    uint64_t sum = 0;
    for (int i = 0; i < kMeasured; ++i) sum += sweep();
    return sum / kMeasured;
  }

 private:
  uint64_t sweep() {
    uint64_t read = 0;
    for (size_t i = 0; i < tiles_.size(); ++i) {
      if (kept_.contains(i)) continue;
      const uint64_t bytes = tiles_[i].read_bytes();
      while (room_ < bytes && !kept_.empty()) drop_before(i);
      read += bytes;
      if (room_ < bytes) continue;
      room_ -= bytes;
      kept_.insert(i);
    }
    return read;
  }

  void drop_before(size_t i) {
    auto last = kept_.lower_bound(i);
    last = last == kept_.begin() ? std::prev(kept_.end()) : std::prev(last);
    room_ += tiles_[*last].read_bytes();
    kept_.erase(last);
  }

  const std::vector<Tile>& tiles_;
  uint64_t room_;
  std::set<size_t> kept_;
};

uint64_t streamed_bytes(const Plan& plan) { return plan.list.total_bytes() - plan.pinned_bytes(); }

// What an optimal cache would read with the memory that the plan has for weights. Reading goes on
// while a tile is in use, so the tile that is being read takes room as well.
uint64_t optimal_bytes(const Plan& plan, uint64_t budget_bytes) {
  const uint64_t other =
      plan.reserved_workspace_bytes + plan.embedding_slots * plan.embedding_slot_bytes;
  const uint64_t capacity = budget_bytes - other;
  if (capacity >= plan.list.total_bytes()) return 0;
  return BeladyCache(plan.list.tiles, capacity - plan.list.largest_read_bytes()).bytes_per_sweep();
}

// The least tile: a block, which need not begin and end with a page.
constexpr uint64_t kLeastTileBytes = 2 * store::kBlockTargetBytes;

double read_bytes(const Plan& plan, size_t tile) {
  return static_cast<double>(plan.list.tiles[tile].read_bytes());
}

// All, but without norms and the like where they all stay, wherever they are.
std::vector<size_t> tiles_that_are_spread(const Plan& plan) {
  constexpr uint64_t kSmallBytes = 64 * kKiB;
  std::vector<size_t> large, all;
  bool small_stay = true;
  for (size_t i = 0; i < plan.list.tiles.size(); ++i) {
    const bool is_small = plan.list.tiles[i].read_bytes() <= kSmallBytes;
    all.push_back(i);
    if (!is_small) large.push_back(i);
    small_stay = small_stay && (!is_small || plan.stays(i));
  }
  return small_stay ? large : all;
}

uint64_t pick(std::mt19937& random, uint64_t least, uint64_t most) {
  return std::uniform_int_distribution<uint64_t>(least, most)(random);
}

// Dense: which experts a sweep uses is no cyclic scan. From some megabytes to some tens of
// gigabytes.
model::Architecture random_architecture(std::mt19937& random) {
  const uint64_t head_dim = 16 << pick(random, 0, 3);
  const uint64_t kv_heads = uint64_t{1} << pick(random, 0, 3);
  const uint64_t heads = kv_heads * pick(random, 1, 6);
  const uint64_t hidden = heads * head_dim;
  const std::string config =
      R"({"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,)"
      R"("num_hidden_layers": )" +
      std::to_string(pick(random, 2, 48)) + R"(, "hidden_size": )" + std::to_string(hidden) +
      R"(, "num_attention_heads": )" + std::to_string(heads) + R"(, "num_key_value_heads": )" +
      std::to_string(kv_heads) + R"(, "head_dim": )" + std::to_string(head_dim) +
      R"(, "intermediate_size": )" + std::to_string(hidden * pick(random, 20, 40) / 10) +
      R"(, "vocab_size": )" + std::to_string(pick(random, 500, 150000)) + "}";
  model::Architecture a = model::parse_config(config, "config").value();
  a.tied_head = pick(random, 0, 1) == 1;
  return a;
}

class RandomPlans : public ::testing::TestWithParam<uint32_t> {
 protected:
  RandomPlans() : random_(GetParam()), model_(random_architecture(random_), format()) {
    weights_ = cut_tiles(model_.architecture, model_.shards, kMiB).total_bytes();
  }

  kernels::NumberFormat format() {
    return pick(random_, 0, 1) == 1 ? kernels::NumberFormat::kF32 : kernels::NumberFormat::kBF16;
  }

  // Calls check(plan, budget) for budgets from a tenth of the weights to more than they take.
  template <typename Check>
  void for_each_budget(const Check& check) const {
    for (int percent = 10; percent <= 120; percent += percent == 90 || percent == 95 ? 5 : 10) {
      const uint64_t budget = weights_ / 100 * static_cast<uint64_t>(percent);
      const Result<Plan> plan = make_plan(model_.input(), budget);
      if (!plan) {
        EXPECT_LT(budget, 2 * kMiB) << plan.error().message;
        continue;
      }
      SCOPED_TRACE("budget " + format_size(budget) + " of " + format_size(weights_) +
                   " of weights, tiles of " + format_size(plan->list.largest_read_bytes()) +
                   ", ring of " + std::to_string(plan->ring_slots) + ", streamed " +
                   format_size(streamed_bytes(*plan)));
      check(*plan, budget);
    }
  }

  std::mt19937 random_;
  OutlineModel model_;
  uint64_t weights_ = 0;
};

TEST_P(RandomPlans, ReadWhatAnOptimalCacheReads) {
  for_each_budget([](const Plan& plan, uint64_t budget) {
    EXPECT_LE(plan.slab_bytes, budget);
    const uint64_t optimal = optimal_bytes(plan, budget);
    const uint64_t streamed = streamed_bytes(plan);
    // A cache that changes what it keeps from sweep to sweep reads a tile less than one that does
    // not, and less than a tile may be left unused. Where few of the least tiles stream, that is
    // more than a fiftieth.
    const uint64_t tile = plan.list.largest_read_bytes();
    const uint64_t tiles = tile <= kLeastTileBytes ? 2 * tile : 0;
    const uint64_t allowed = optimal + std::max(optimal / 50, tiles);
    EXPECT_LE(streamed, allowed) << "optimal " << format_size(optimal);
  });
}

// Reading keeps an even pace beside multiplying: nowhere is much more, or less, of what went by
// pinned than elsewhere.
TEST_P(RandomPlans, SpreadWhatStaysEvenly) {
  for_each_budget([](const Plan& plan, uint64_t) {
    if (!plan.streams()) return;
    const std::vector<size_t> tiles = tiles_that_are_spread(plan);
    double total = 0, all_pinned = 0;
    for (const size_t i : tiles) {
      total += read_bytes(plan, i);
      all_pinned += plan.stays(i) ? read_bytes(plan, i) : 0;
    }
    const double share = total > 0 ? all_pinned / total : 0;
    const auto tile = static_cast<double>(plan.list.largest_read_bytes());
    double gone_by = 0, pinned = 0, gap = 0, largest_gap = 0;
    double most = 0, least = 0;  // of what is pinned beyond its share
    for (const size_t i : tiles) {
      const double bytes = read_bytes(plan, i);
      gone_by += bytes;
      pinned += plan.stays(i) ? bytes : 0;
      gap = plan.stays(i) ? 0 : gap + bytes;
      largest_gap = std::max(largest_gap, gap);
      most = std::max(most, pinned - share * gone_by);
      least = std::min(least, pinned - share * gone_by);
    }
    // A tile is pinned whole or not at all, wherefore one either way; one more at the end, where
    // the room that is left is filled with what fits.
    EXPECT_LE(most - least, 3 * tile);
    // Between two pinned tiles there is what their share leaves, and a tile's difference. The last
    // gap is half longer where the room that is left holds no tile.
    const double mean_gap = share > 0 ? tile * (1 - share) / share : total;
    EXPECT_LE(largest_gap, 1.5 * mean_gap + 2 * tile);
  });
}

INSTANTIATE_TEST_SUITE_P(Models, RandomPlans, ::testing::Range(0U, 40U));

// A model of 405 billion parameters, whose weights are two hundred thousand tiles.
TEST(LargePlan, IsMadeInNoTime) {
  const std::string config = R"({"model_type": "llama", "num_hidden_layers": 126,
    "hidden_size": 16384, "num_attention_heads": 128, "num_key_value_heads": 8,
    "intermediate_size": 53248, "vocab_size": 128256, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5})";
  const OutlineModel model(model::parse_config(config, "config").value(),
                           kernels::NumberFormat::kBF16);
  const auto start = std::chrono::steady_clock::now();
  const Result<Plan> plan = make_plan(model.input(), 100 * kGiB);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_GT(plan->list.tiles.size(), 100000U);
  EXPECT_LT(taken.count(), 20);  // a tenth of a second where nothing else runs
}

}  // namespace
}  // namespace airllm::stream

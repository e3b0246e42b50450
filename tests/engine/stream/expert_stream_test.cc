// The weight pipeline of a mixture of experts whose experts do not all fit.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "base/units.h"
#include "engine/stream/device.h"
#include "engine/stream/weight_stream.h"
#include "tests/engine/stream/device_memory.h"
#include "tests/engine/stream/memory_model.h"
#include "tests/engine/stream/sweep.h"

namespace airllm::stream {
namespace {

using testing::MemoryModel;

constexpr size_t kLayers = 3, kExperts = 8;

using Choice = std::vector<bool>;  // [experts]

class ExpertStream : public ::testing::Test {
 protected:
  ExpertStream()
      : model_(testing::tiny_architecture_of_experts(kExperts, 64, 200),
               kernels::NumberFormat::kF32, 7) {
    model_.before_read = [this](uint64_t, size_t bytes) {
      read_ += bytes;
      while (hangs_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return Status();
    };
  }
  ~ExpertStream() override { hangs_ = false; }

  // A plan with as near to `slots` slots as there is.
  void start(size_t slots, const StreamOptions& options = {}) {
    const PlanInput input{&model_.architecture, model_.shards};
    for (uint64_t budget = 256 * kKiB;; budget += 16 * kKiB) {
      Result<Plan> plan = make_plan(input, budget);
      ASSERT_LT(budget, full_budget_bytes(input));
      if (!plan || plan->expert_slots() < slots) continue;
      plan_ = std::move(*plan);
      break;
    }
    ASSERT_LE(plan_.expert_slots(), slots + 1);
    slab_ = *Slab::create(plan_.slab_bytes);
    stream_.emplace(plan_, model_.shards, slab_.memory(), kernels::scalar_backend(), options,
                    [this] { return interrupted(); });
  }

  // The same on a device with memory of its own, beside `ram_bytes` of the host's.
  void start_on_device(size_t slots, uint64_t ram_bytes) {
    stream_.reset();
    const PlanInput input{&model_.architecture, model_.shards, ram_bytes};
    uint64_t vram = 200 * kKiB;
    for (;; vram += 16 * kKiB) {
      ASSERT_LT(vram, 8 * kMiB);
      Result<Plan> plan = make_plan(input, vram);
      if (!plan || plan->expert_slots() < slots) continue;
      plan_ = std::move(*plan);
      break;
    }
    device_.emplace(input, plan_, vram);
    const HostSide host = device_->host();
    stream_.emplace(
        plan_, model_.shards, device_->block.memory(), kernels::scalar_backend(), StreamOptions{},
        [this] { return interrupted(); }, &host);
  }

  bool is_right(const model::TileView& view, const Tile& tile) const {
    std::vector<std::byte> found(tile.data_bytes);
    if (device_) {
      device_->arena().read(found, view.data);
    } else {
      std::copy_n(view.data, found.size(), found.begin());
    }
    const std::string& content = model_.files[tile.shard]->content();
    return std::memcmp(found.data(), content.data() + tile.data_offset, tile.data_bytes) == 0;
  }

  Status interrupted() {
    if (is_interrupted_) return Unexpected(ErrorCode::kCancelled, "interrupted");
    return {};
  }

  // A sweep in which each layer uses these; every tile's bytes are checked.
  Status sweep(const std::vector<Choice>& choices) {
    return testing::sweep_of_experts(*stream_, model_.architecture, plan_.list, choices,
                                     [this](size_t i, const model::TileView& view) {
                                       const Tile& tile = plan_.list.tiles[i];
                                       EXPECT_EQ(view.stage, tile.stage);
                                       EXPECT_EQ(view.row_begin, tile.row_begin);
                                       EXPECT_TRUE(is_right(view, tile)) << "tile " << i;
                                     });
  }

  std::vector<Choice> random_choices(uint32_t one_of) {
    std::vector<Choice> choices(kLayers, Choice(kExperts));
    for (Choice& used : choices) {
      for (size_t e = 0; e < kExperts; ++e) used[e] = random_() % one_of == 0;
    }
    return choices;
  }

  uint64_t expert_bytes(const std::vector<Choice>& choices) const {
    uint64_t sum = 0;
    for (const ExpertTiles& expert : plan_.experts) {
      if (choices[expert.layer][expert.expert]) sum += expert.bytes;
    }
    return sum;
  }

  MemoryModel model_;
  Plan plan_;
  Slab slab_;
  std::optional<testing::DeviceMemory> device_;
  std::atomic<uint64_t> read_{0};
  std::atomic<bool> hangs_{false}, is_interrupted_{false};
  std::mt19937 random_{5};
  std::optional<WeightStream> stream_;
};

TEST_F(ExpertStream, TheRightBytesWhateverIsKept) {
  for (const size_t slots : {1, 2, 5, 9, 12}) {
    start(slots);
    for (int i = 0; i < 60; ++i) {
      // Now and then a prompt that uses nearly all, more than there are slots.
      ASSERT_TRUE(sweep(random_choices(i % 7 == 0 ? 1 : 4))) << slots;
    }
    stream_.reset();
  }
}

TEST_F(ExpertStream, WhatIsUsedAgainIsNotReadAgain) {
  start(6);
  std::vector<Choice> choices(kLayers, Choice(kExperts));
  for (size_t layer = 0; layer < kLayers; ++layer) choices[layer][2 * layer + 1] = true;
  ASSERT_TRUE(sweep(choices));
  EXPECT_EQ(stream_->expert_counters().misses, kLayers);
  EXPECT_EQ(stream_->expert_counters().read_bytes, expert_bytes(choices));
  EXPECT_EQ(stream_->resident_expert_bytes(), expert_bytes(choices));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(sweep(choices));
  EXPECT_EQ(stream_->expert_counters().misses, kLayers);
  EXPECT_EQ(stream_->expert_counters().hits, 3 * kLayers);
  EXPECT_EQ(stream_->expert_counters().read_bytes, expert_bytes(choices));
  EXPECT_EQ(stream_->expert_counters().saved_bytes, 3 * expert_bytes(choices));
}

TEST_F(ExpertStream, CountsWhatItReads) {
  start(8);
  uint64_t used = 0;
  for (int i = 0; i < 40; ++i) {
    const std::vector<Choice> choices = random_choices(3);
    used += expert_bytes(choices);
    ASSERT_TRUE(sweep(choices));
    const ExpertCounters& counters = stream_->expert_counters();
    EXPECT_EQ(counters.read_bytes + counters.saved_bytes, used);
    EXPECT_LE(stream_->resident_expert_bytes(), plan_.expert_slot_bytes());
  }
  // All else is pinned and read once; of the experts what the counters say.
  uint64_t always = 0;
  for (const Tile& tile : plan_.list.tiles) always += tile.expert ? 0 : tile.read_bytes();
  EXPECT_EQ(read_, always + stream_->expert_counters().read_bytes);
  EXPECT_GT(stream_->expert_counters().saved_bytes, 0U);
}

// Nobody takes an expert's first tile until the reads of all tiles of all of them have begun.
TEST_F(ExpertStream, AllReadsOfALayersExpertsGoOutAtOnce) {
  start(8, {.reader = ReaderKind::kThreads, .readers = 16});
  std::vector<Choice> choices(kLayers, Choice(kExperts));
  ASSERT_TRUE(sweep(choices));  // reads what every sweep uses
  choices[0][1] = choices[0][4] = choices[0][6] = true;
  size_t tiles = 0;
  for (const ExpertTiles& e : plan_.experts) {
    if (choices[e.layer][e.expert]) tiles += e.end - e.begin;
  }
  ASSERT_LE(tiles, 16U);
  std::atomic<size_t> begun{0};
  model_.before_read = [&](uint64_t, size_t) {
    ++begun;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (begun < tiles && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return Status();
  };
  ASSERT_TRUE(sweep(choices));
  EXPECT_EQ(begun, tiles);
}

TEST_F(ExpertStream, AReadOfAGivenUpSweepKeepsItsSlot) {
  start(1, {.readers = 2, .read_deadline_seconds = 60});
  std::vector<Choice> none(kLayers, Choice(kExperts)), one = none, other = none;
  ASSERT_TRUE(sweep(none));
  one[0][3] = true;
  for (Choice& used : other) used[5] = true;
  hangs_ = is_interrupted_ = true;
  EXPECT_FALSE(sweep(one));
  is_interrupted_ = false;
  // The other expert finds the slot still being written to, and streams once the readers are back.
  std::thread later([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    hangs_ = false;
  });
  EXPECT_TRUE(sweep(other));
  later.join();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(sweep(i % 3 == 0 ? one : other));
}

TEST_F(ExpertStream, AGivenUpSweepLeavesNothingHalf) {
  start(7);
  for (int i = 0; i < 40; ++i) {
    const std::vector<Choice> choices = random_choices(2);
    is_interrupted_ = i % 3 == 0;
    (void)sweep(choices);  // where it does not wait, it is not interrupted
    is_interrupted_ = false;
    if (i % 3 == 1) {
      stream_->begin_sweep(true);
      bool done = false;
      ASSERT_TRUE(stream_->next_tile(done));
    }
    ASSERT_TRUE(sweep(random_choices(3)));
  }
}

TEST_F(ExpertStream, OnADeviceTheyHaveSlotsThere) {
  for (const uint64_t ram : {512 * kKiB, 1 * kMiB, 8 * kMiB}) {
    for (const size_t slots : {1, 5, 9}) {
      SCOPED_TRACE(std::to_string(slots) + " slots, " + format_size(ram) + " of RAM");
      start_on_device(slots, ram);
      const uint64_t kept = device_->host_plan.kept_bytes(plan_.list);
      for (int i = 0; i < 30; ++i) {
        is_interrupted_ = i % 5 == 4;
        const std::vector<Choice> given_up = random_choices(2);
        if (is_interrupted_) (void)sweep(given_up);
        is_interrupted_ = false;
        const std::vector<Choice> choices = random_choices(i % 7 == 0 ? 1 : 4);
        const ExpertCounters before = stream_->expert_counters();
        ASSERT_TRUE(sweep(choices));
        const ExpertCounters& after = stream_->expert_counters();
        EXPECT_EQ(after.read_bytes + after.saved_bytes,
                  before.read_bytes + before.saved_bytes + expert_bytes(choices));
        EXPECT_LE(stream_->resident_expert_bytes(), plan_.expert_slot_bytes());
        EXPECT_LE(stream_->resident_bytes(),
                  kept + plan_.pinned_bytes() + plan_.expert_slot_bytes());
      }
      EXPECT_GT(stream_->expert_counters().saved_bytes, 0U);
    }
  }
}

TEST_F(ExpertStream, WhatADevicesSlotHoldsIsNotCopiedAgain) {
  start_on_device(6, 8 * kMiB);
  std::vector<Choice> choices(kLayers, Choice(kExperts));
  for (size_t layer = 0; layer < kLayers; ++layer) choices[layer][2 * layer + 1] = true;
  ASSERT_TRUE(sweep(choices));
  (void)stream_->take_counters();
  ASSERT_TRUE(sweep(choices));
  const IoCounters io = stream_->take_counters();
  EXPECT_EQ(io.read_bytes, 0U);
  uint64_t streamed = 0;  // what every sweep uses, and no place of its own holds
  for (size_t i = 0; i < plan_.list.tiles.size(); ++i) {
    if (!plan_.stays(i) && !plan_.list.tiles[i].expert) streamed += plan_.list.tiles[i].data_bytes;
  }
  EXPECT_EQ(io.copied_bytes, streamed);
}

TEST_F(ExpertStream, AFailedReadIsReadAgain) {
  start(6);
  std::vector<Choice> choices(kLayers, Choice(kExperts));
  ASSERT_TRUE(sweep(choices));
  choices[1][2] = choices[1][7] = true;
  std::atomic<int> fails{1};
  model_.before_read = [&](uint64_t, size_t) -> Status {
    if (fails-- > 0) return Unexpected(ErrorCode::kIo, "injected");
    return {};
  };
  const Status status = sweep(choices);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "injected");
  EXPECT_TRUE(sweep(choices));
  const uint64_t misses = stream_->expert_counters().misses;
  EXPECT_TRUE(sweep(choices));
  EXPECT_EQ(stream_->expert_counters().misses, misses);
}

TEST_F(ExpertStream, AFlippedBitOfAnExpertIsFoundBeforeUse) {
  start(6);
  std::vector<Choice> choices(kLayers, Choice(kExperts));
  choices[1][2] = true;
  const size_t begin = plan_.experts[kExperts + 2].begin;
  const Tile& tile = plan_.list.tiles[begin];
  model_.files[tile.shard]->content()[tile.data_offset + 3] ^= 0x10;
  const Status status = sweep(choices);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kData);
}

}  // namespace
}  // namespace airllm::stream

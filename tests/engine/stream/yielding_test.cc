// Tiles in the workspace, which yield their places to large batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "tests/engine/stream/streamed_model.h"

namespace airllm::stream {
namespace {

using testing::StreamedModel;
using testing::tiny_architecture;

constexpr uint64_t kBudget = 330 * kKiB;

class Yielding : public ::testing::TestWithParam<ReaderKind> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(plan().streams());
    ASSERT_GE(yielding().size(), 3U);
  }

  const Plan& plan() const { return model.plan; }

  std::vector<size_t> yielding() const {
    std::vector<size_t> tiles;
    for (size_t i = 0; i < plan().list.tiles.size(); ++i) {
      if (plan().yields(i)) tiles.push_back(i);
    }
    return tiles;
  }

  // Of the tiles that lie, in whole or in part, within the first `bytes` of the workspace.
  uint64_t taken_bytes(uint64_t bytes) const {
    uint64_t sum = 0;
    for (const size_t tile : yielding()) {
      if (plan().pinned_offset[tile] < bytes) sum += plan().list.tiles[tile].read_bytes();
    }
    return sum;
  }

  // A sweep whose batch fills so many bytes of the workspace; they are its own to the end.
  IoCounters sweep(uint64_t bytes) {
    (void)model.stream->take_counters();
    EXPECT_TRUE(model.stream->take_workspace(bytes));
    fill(bytes);
    EXPECT_TRUE(model.sweep(true));
    expect_filled(bytes);
    return model.stream->take_counters();
  }

  void fill(uint64_t bytes) { std::fill_n(model.slab.memory().begin(), bytes, kRows); }
  void expect_filled(uint64_t bytes) const {
    const std::span<const std::byte> used = model.slab.memory().first(bytes);
    EXPECT_TRUE(std::all_of(used.begin(), used.end(), [](std::byte b) { return b == kRows; }));
  }

  uint64_t streamed() const { return plan().list.total_bytes() - plan().pinned_bytes(); }

  static constexpr std::byte kRows{0xa5};

  StreamedModel model{tiny_architecture(true), kBudget, {.reader = GetParam()}};
};

TEST_P(Yielding, TheirTilesStreamWhileALargeBatchHasTheWorkspace) {
  const uint64_t all = plan().workspace_bytes;
  const uint64_t few = plan().reserved_workspace_bytes;
  sweep(few);
  EXPECT_EQ(sweep(few).read_bytes, streamed());
  EXPECT_EQ(model.stream->resident_bytes(), plan().pinned_bytes());
  // What reading has gone past goes once more through the ring, no more than it holds.
  const uint64_t ring = plan().ring_slots * plan().ring_slot_bytes;
  const IoCounters large = sweep(all);
  EXPECT_GE(large.read_bytes, streamed() + taken_bytes(all));
  EXPECT_LE(large.read_bytes, streamed() + taken_bytes(all) + ring);
  EXPECT_EQ(model.stream->resident_bytes(), plan().pinned_bytes() - taken_bytes(all));
  EXPECT_EQ(sweep(all).read_bytes, streamed() + taken_bytes(all));
  // Once more, to lie there again; at the next but one where reading ahead has gone past them.
  sweep(few);
  sweep(few);
  EXPECT_EQ(sweep(few).read_bytes, streamed());
  EXPECT_EQ(model.stream->resident_bytes(), plan().pinned_bytes());
}

TEST_P(Yielding, OnlyThoseWhosePlaceIsUsedAreReadAgain) {
  const std::vector<size_t> tiles = yielding();
  const auto is_before = [this](size_t a, size_t b) {
    return plan().pinned_offset[a] < plan().pinned_offset[b];
  };
  const size_t first = *std::min_element(tiles.begin(), tiles.end(), is_before);
  const uint64_t place = plan().pinned_offset[first];
  sweep(0);
  EXPECT_EQ(sweep(place).read_bytes, streamed());
  sweep(place + 1);
  EXPECT_EQ(sweep(place + 1).read_bytes, streamed() + plan().list.tiles[first].read_bytes());
}

// Batches of any size, some of whose sweeps are given up on the way.
TEST_P(Yielding, AnyOrderOfBatchesGetsTheRightBytes) {
  std::mt19937 random(17);
  for (int i = 0; i < 300; ++i) {
    const uint64_t bytes = random() % (plan().workspace_bytes + 1);
    if (random() % 3 != 0) {
      sweep(bytes);
      continue;
    }
    ASSERT_TRUE(model.stream->take_workspace(bytes));
    fill(bytes);
    model.stream->begin_sweep(true);
    const size_t end = random() % plan().list.tiles.size();
    for (size_t tile = 0; tile < end; ++tile) {
      bool done = false;
      const Result<model::TileView> view = model.stream->next_tile(done);
      ASSERT_TRUE(view);
      model.check(tile, *view);
      if (tile + 1 < end || random() % 2 == 0) model.stream->release_tile();
    }
    expect_filled(bytes);
  }
  sweep(0);
  sweep(0);
  EXPECT_EQ(sweep(0).read_bytes, streamed());
}

// A batch does not get memory that a read still fills, and can be given up while it waits for that.
TEST_P(Yielding, AReadUnderWayIsWaitedFor) {
  StreamedModel slow(tiny_architecture(true), kBudget, {.reader = GetParam(), .readers = 1});
  const size_t tile = yielding().front();
  std::atomic<size_t> begun{0};
  std::atomic<bool> hangs{true};
  slow.model.before_read = [&](uint64_t, size_t) {
    // Each tile is read once in the first sweep, in order.
    if (++begun == tile + 1) {
      while (hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return Status();
  };
  ASSERT_TRUE(slow.stream->take_workspace(0));
  slow.stream->begin_sweep(true);
  for (size_t i = 0; i < tile; ++i) {
    bool done = false;
    ASSERT_TRUE(slow.stream->next_tile(done));
    slow.stream->release_tile();
  }
  while (begun <= tile) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  slow.is_interrupted = true;
  const Status given_up = slow.stream->take_workspace(plan().workspace_bytes);
  ASSERT_FALSE(given_up);
  EXPECT_EQ(given_up.error().code, ErrorCode::kCancelled);
  slow.is_interrupted = false;
  // A small batch need not wait; the tile streams in its sweep.
  ASSERT_TRUE(slow.stream->take_workspace(0));
  std::jthread end([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    hangs = false;
  });
  ASSERT_TRUE(slow.stream->take_workspace(plan().workspace_bytes));
  EXPECT_FALSE(hangs);
  std::fill_n(slow.slab.memory().begin(), plan().workspace_bytes, kRows);
  EXPECT_TRUE(slow.sweep(true));
  ASSERT_TRUE(slow.stream->take_workspace(0));
  EXPECT_TRUE(slow.sweep(true));
}

INSTANTIATE_TEST_SUITE_P(Readers, Yielding,
                         ::testing::Values(ReaderKind::kAuto, ReaderKind::kThreads),
                         [](const auto& instance) {
                           return std::string(instance.param == ReaderKind::kAuto ? "Auto"
                                                                                  : "Threads");
                         });

}  // namespace
}  // namespace airllm::stream

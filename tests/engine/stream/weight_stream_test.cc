#include "engine/stream/weight_stream.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/stream/device.h"
#include "tests/engine/memory_flags.h"
#include "tests/engine/stream/streamed_model.h"

namespace airllm::stream {
namespace {

using testing::MemoryModel;
using Fixture = testing::StreamedModel;
using testing::tiny_architecture;

uint64_t full_budget() {
  const MemoryModel model(tiny_architecture(true), kernels::NumberFormat::kF32, 7);
  return full_budget_bytes({&model.architecture, model.shards});
}

// The least budget, and some between it and all.
std::vector<uint64_t> streaming_budgets() { return {260 * kKiB, 300 * kKiB, 340 * kKiB}; }

TEST(WeightStream, GivesTheRightBytesInOrderWithAnyBudgetAndReader) {
  for (const uint64_t budget : streaming_budgets()) {
    for (const ReaderKind reader : {ReaderKind::kAuto, ReaderKind::kThreads}) {
      Fixture fixture(budget, true, {.reader = reader});
      ASSERT_TRUE(fixture.plan.streams());
      EXPECT_STREQ(fixture.stream->reader_name(), usable_reader(reader));
      for (const bool with_head : {true, false, false, true, true}) {
        ASSERT_TRUE(fixture.sweep(with_head)) << format_size(budget);
      }
    }
  }
}

TEST(WeightStream, ReadsNothingTwiceWhenAllFits) {
  Fixture fixture(full_budget());
  ASSERT_TRUE(fixture.sweep(true));
  const IoCounters first = fixture.stream->take_counters();
  EXPECT_EQ(first.read_bytes, fixture.plan.list.total_bytes());
  EXPECT_EQ(first.cache_bytes, 0U);
  ASSERT_TRUE(fixture.sweep(true));
  const IoCounters second = fixture.stream->take_counters();
  EXPECT_EQ(second.read_bytes, 0U);
  EXPECT_EQ(second.cache_bytes, fixture.plan.list.total_bytes());
}

TEST(WeightStream, ReadsWhatIsNotPinnedOncePerSweep) {
  Fixture fixture(streaming_budgets()[1]);
  ASSERT_TRUE(fixture.sweep(true));
  (void)fixture.stream->take_counters();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(fixture.sweep(true));
    const IoCounters io = fixture.stream->take_counters();
    EXPECT_EQ(io.read_bytes, fixture.plan.list.total_bytes() - fixture.plan.pinned_bytes());
    EXPECT_EQ(io.cache_bytes, fixture.plan.pinned_bytes());
  }
}

TEST(WeightStream, TellsWhereItsResidentWeightsAre) {
  Fixture fixture(streaming_budgets()[1]);
  EXPECT_TRUE(fixture.stream->resident_memory().empty());
  ASSERT_TRUE(fixture.sweep(true));
  uint64_t bytes = 0;
  const std::byte* end = nullptr;
  for (const std::span<const std::byte> part : fixture.stream->resident_memory()) {
    EXPECT_GT(part.data(), end);
    end = part.data() + part.size();
    bytes += part.size();
  }
  EXPECT_EQ(bytes, fixture.plan.pinned_bytes());
  EXPECT_LE(end, fixture.slab.memory().data() + fixture.slab.memory().size());
}

TEST(WeightStream, ReadingAheadComesToRest) {
  Fixture fixture(streaming_budgets()[1]);
  EXPECT_FALSE(fixture.stream->is_reading());
  ASSERT_TRUE(fixture.sweep(true));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (fixture.stream->is_reading() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_FALSE(fixture.stream->is_reading());
}

model::Architecture architecture_of_experts() {
  return testing::tiny_architecture_of_experts(6, 40, 72);
}

// One sweep in which each layer uses these experts; the tiles' bytes, or an error's text.
Result<uint64_t> sweep_of_experts(Fixture& fixture, const std::vector<bool>& used) {
  const std::vector<std::vector<bool>> choices(3, used);
  uint64_t bytes = 0;
  AIRLLM_TRY_VOID(testing::sweep_of_experts(*fixture.stream, fixture.model.architecture,
                                            fixture.plan.list, choices,
                                            [&](size_t i, const model::TileView& view) {
                                              fixture.check(i, view);
                                              bytes += fixture.plan.list.tiles[i].read_bytes();
                                            }));
  return bytes;
}

TEST(WeightStream, ExpertsThatAreNotUsedAreNeitherReadNorGiven) {
  const std::vector<bool> some{true, false, false, true, false, false};
  const std::vector<bool> others{false, false, true, true, false, true};
  const MemoryModel model(architecture_of_experts(), kernels::NumberFormat::kF32, 7);
  const uint64_t full = full_budget_bytes({&model.architecture, model.shards});
  std::atomic<uint64_t> read{0};
  Fixture fixture(architecture_of_experts(), full, {});
  fixture.model.before_read = [&](uint64_t, size_t bytes) {
    read += bytes;
    return Status();
  };
  const Result<uint64_t> first = sweep_of_experts(fixture, some);
  ASSERT_TRUE(first.has_value());
  EXPECT_LT(*first, fixture.plan.list.total_bytes());
  EXPECT_EQ(read, *first);
  // What was read stays; only what is new is read.
  const Result<uint64_t> second = sweep_of_experts(fixture, others);
  ASSERT_TRUE(second.has_value());
  EXPECT_GT(read, *first);
  EXPECT_LT(read, *first + *second);
  const uint64_t before = read;
  ASSERT_TRUE(sweep_of_experts(fixture, some).has_value());
  EXPECT_EQ(read, before);
}

TEST(WeightStream, ExpertsStreamThroughTheRingToo) {
  const std::vector<bool> none(6), all(6, true), some{false, true, false, false, true, false};
  for (const uint64_t budget : {320 * kKiB, 400 * kKiB}) {
    Fixture fixture(architecture_of_experts(), budget, {});
    ASSERT_TRUE(fixture.plan.streams());
    for (const std::vector<bool>& used : {some, none, all, some, all, none}) {
      ASSERT_TRUE(sweep_of_experts(fixture, used).has_value()) << format_size(budget);
    }
  }
}

TEST(WeightStream, ReadsAheadIntoTheNextSweep) {
  Fixture fixture(streaming_budgets()[0]);
  std::mutex mutex;
  std::condition_variable changed;
  size_t reads = 0;
  fixture.model.before_read = [&](uint64_t, size_t) {
    const std::lock_guard lock(mutex);
    ++reads;
    changed.notify_all();
    return Status();
  };
  ASSERT_TRUE(fixture.sweep(true));
  // Without another begin_sweep the ring fills with the first layers' tiles.
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20),
                                 [&] { return reads > fixture.plan.list.tiles.size(); }))
        << reads << " reads";
  }
  fixture.stream.reset();
}

TEST(WeightStream, AGivenUpSweepBeginsAfresh) {
  for (const uint64_t budget : streaming_budgets()) {
    Fixture fixture(budget);
    for (size_t stop_after = 0; stop_after < fixture.plan.list.tiles.size(); stop_after += 5) {
      fixture.stream->begin_sweep(true);
      for (size_t i = 0; i < stop_after; ++i) {
        bool done = false;
        const Result<model::TileView> view = fixture.stream->next_tile(done);
        ASSERT_TRUE(view);
        if (i % 2 == 0 || i + 1 < stop_after) fixture.stream->release_tile();
      }
      ASSERT_TRUE(fixture.sweep(stop_after % 2 == 0));
    }
  }
}

TEST(WeightStream, AFailedReadEndsTheSweepAndTheNextOneWorks) {
  for (const uint64_t budget : {streaming_budgets()[0], full_budget()}) {
    Fixture fixture(budget);
    std::atomic<int> countdown{9};
    fixture.model.before_read = [&](uint64_t, size_t) -> Status {
      if (countdown.fetch_sub(1) != 0) return {};
      return Unexpected(ErrorCode::kIo, "injected");
    };
    const Status status = fixture.sweep(true);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().message, "injected");
    EXPECT_TRUE(fixture.sweep(true));
    fixture.stream.reset();
  }
}

TEST(WeightStream, AFlippedBitIsFoundBeforeUse) {
  Fixture fixture(streaming_budgets()[0]);
  const Tile& tile = fixture.plan.list.tiles[fixture.plan.list.tiles.size() / 2];
  fixture.model.files[tile.shard]->content()[tile.data_offset + 3] ^= 0x10;
  const Status status = fixture.sweep(true);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kData);
  EXPECT_NE(status.error().message.find(fixture.model.shards[tile.shard].path), std::string::npos);
}

TEST(WeightStream, AWaitForAReadCanBeInterrupted) {
  Fixture fixture(streaming_budgets()[0]);
  std::atomic<bool> hang{true};
  fixture.model.before_read = [&](uint64_t, size_t) {
    while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Status();
  };
  fixture.is_interrupted = true;
  const Status status = fixture.sweep(true);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  fixture.is_interrupted = false;
  hang = false;
  EXPECT_TRUE(fixture.sweep(true));
  fixture.stream.reset();
}

TEST(WeightStream, AReadThatDoesNotComeBackFailsTheSweepAndItsBufferIsSetAside) {
  Fixture fixture(streaming_budgets()[0], true, {.readers = 2, .read_deadline_seconds = 0.05});
  std::atomic<bool> hang{true};
  std::atomic<int> calls{0};
  fixture.model.before_read = [&](uint64_t, size_t) {
    // Only the first read hangs.
    if (calls++ == 0) {
      while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return Status();
  };
  const Status status = fixture.sweep(true);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_NE(status.error().message.find("did not come back"), std::string::npos);
  hang = false;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  fixture.stream->set_read_deadline(60);
  EXPECT_TRUE(fixture.sweep(true));
  fixture.stream.reset();
}

TEST(WeightStream, AReadThatHangsKeepsItsMemoryAndNothingElseWaits) {
  std::atomic<bool> hang{true}, hangs{false};
  Fixture fixture(streaming_budgets()[0], false, {.readers = 2, .read_deadline_seconds = 0.05});
  fixture.model.before_read = [&](uint64_t, size_t) {
    hangs = true;
    while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Status();
  };
  std::vector<float> row(fixture.model.architecture.hidden);
  // On a busy machine the first may be over before a reader has begun.
  while (!hangs) {
    const Status status = fixture.stream->lookup(0, 3, row.data());
    EXPECT_FALSE(status);
    EXPECT_NE(status.error().message.find("did not come back"), std::string::npos);
  }
  EXPECT_TRUE(fixture.stream->has_late_read());
  EXPECT_FALSE(fixture.stream->stop_reading(std::chrono::milliseconds(10)));
  EXPECT_FALSE(fixture.stream->readers_are_back());
  const auto kept = fixture.stream->memory_being_read();
  EXPECT_EQ(kept.size(), 1U);
  for (const std::span<std::byte> part : kept) {
    EXPECT_GE(part.data(), fixture.slab.memory().data());
  }
  hang = false;
  EXPECT_TRUE(fixture.stream->stop_reading(std::chrono::seconds(20)));
  EXPECT_TRUE(fixture.stream->memory_being_read().empty());
}

TEST(Slab, GivesPagesBackAndIsLeftOutOfCoreFiles) {
  Slab slab = *Slab::create(16 * kPageBytes);
  std::fill(slab.memory().begin(), slab.memory().end(), std::byte{1});
  // From the middle of the first page to that of the last: only whole ones go.
  slab.discard(slab.memory().subspan(100, 15 * kPageBytes));
  EXPECT_EQ(slab.memory()[kPageBytes - 1], std::byte{1});
  EXPECT_EQ(slab.memory()[kPageBytes], std::byte{0});
  EXPECT_EQ(slab.memory()[15 * kPageBytes - 1], std::byte{0});
  EXPECT_EQ(slab.memory()[15 * kPageBytes], std::byte{1});
  EXPECT_TRUE(testing::is_left_out_of_core_files(slab.memory().data()));
}

TEST(WeightStream, LooksUpEmbeddings) {
  for (const bool tied : {true, false}) {
    for (const uint64_t budget : {streaming_budgets()[0], full_budget() * 2}) {
      Fixture fixture(budget, tied);
      const store::ShardTensor& tensor = fixture.model.shards[0].tensors[0];
      std::vector<float> row(fixture.model.architecture.hidden);
      for (int pass = 0; pass < 2; ++pass) {
        for (uint64_t token = 0; token < tensor.rows; token += 13) {
          ASSERT_TRUE(fixture.stream->lookup(0, token, row.data()));
          const std::string& content = fixture.model.files[0]->content();
          EXPECT_EQ(0, std::memcmp(row.data(),
                                   content.data() + tensor.offset_bytes + token * tensor.row_bytes,
                                   tensor.row_bytes));
        }
        ASSERT_TRUE(fixture.sweep(true));
        const IoCounters io = fixture.stream->take_counters();
        if (pass == 1 && !fixture.plan.streams()) {
          EXPECT_EQ(io.read_bytes, 0U);
        }
      }
    }
  }
}

}  // namespace
}  // namespace airllm::stream

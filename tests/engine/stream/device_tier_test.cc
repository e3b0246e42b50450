// The tier of a device with memory of its own, on the simulated one: what it is given, what is read
// and copied for it, and that no budget is exceeded.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/units.h"
#include "engine/stream/arena.h"
#include "engine/stream/host_tier.h"
#include "engine/stream/simulated_device.h"
#include "engine/stream/weight_stream.h"
#include "tests/engine/stream/device_memory.h"
#include "tests/engine/stream/memory_model.h"
#include "tests/engine/stream/outline_model.h"
#include "tests/engine/stream/sweep.h"

namespace airllm::stream {
namespace {

using testing::MemoryModel;
using testing::tiny_architecture;

struct Budget {
  uint64_t vram_bytes, ram_bytes;
};

struct Fixture {
  explicit Fixture(const Budget& budget, bool tied = true, const StreamOptions& options = {},
                   uint64_t bus_bytes_per_second = 0)
      : model(tiny_architecture(tied), kernels::NumberFormat::kF32, 7),
        input{&model.architecture, model.shards, budget.ram_bytes},
        plan(*make_plan(input, budget.vram_bytes)),
        memory(input, plan, budget.vram_bytes, bus_bytes_per_second) {
    const HostSide host = memory.host();
    stream.emplace(
        plan, model.shards, memory.block.memory(), kernels::scalar_backend(), options,
        [] { return Status(); }, &host);
  }

  Arena& arena() { return memory.arena(); }
  uint64_t kept_bytes() const { return memory.host_plan.kept_bytes(plan.list); }
  uint64_t streamed_bytes() const {
    return plan.list.total_bytes() - plan.pinned_bytes() - kept_bytes();
  }

  // Runs a sweep and compares every tile on the device with the shard's bytes.
  Status sweep(bool with_head = true) {
    return testing::sweep(*stream, plan.list, with_head,
                          [this](size_t i, const model::TileView& view) { check(i, view); });
  }

  void check(size_t i, const model::TileView& view) {
    const Tile& tile = plan.list.tiles[i];
    const std::span<std::byte> block = memory.block.memory();
    EXPECT_TRUE(view.data >= block.data() &&
                view.data + tile.data_bytes <= block.data() + block.size());
    std::vector<std::byte> found(tile.data_bytes);
    arena().read(found, view.data);
    const std::string& content = model.files[tile.shard]->content();
    EXPECT_EQ(0, std::memcmp(found.data(), content.data() + tile.data_offset, tile.data_bytes))
        << "tile " << i;
  }

  MemoryModel model;
  PlanInput input;
  Plan plan;
  testing::DeviceMemory memory;
  std::optional<WeightStream> stream;
};

constexpr uint64_t kMuch = 4 * kMiB;

// All of the device and the host's memory, half of them, and as little as works.
std::vector<Budget> budgets() {
  return {{kMuch, kMuch},           {kMuch, 1200 * kKiB},
          {260 * kKiB, kMuch},      {260 * kKiB, 1000 * kKiB},
          {300 * kKiB, 600 * kKiB}, {340 * kKiB, 512 * kKiB}};
}

std::string text_of(const Budget& budget) {
  return format_size(budget.vram_bytes) + " of VRAM, " + format_size(budget.ram_bytes) + " of RAM";
}

TEST(DeviceTier, GivesTheRightBytesWithAnyBudgetsAndReader) {
  for (const Budget& budget : budgets()) {
    SCOPED_TRACE(text_of(budget));
    for (const ReaderKind reader : {ReaderKind::kAuto, ReaderKind::kThreads}) {
      Fixture fixture(budget, true, {.reader = reader});
      for (const bool with_head : {true, false, false, true, true}) {
        ASSERT_TRUE(fixture.sweep(with_head));
      }
      EXPECT_LE(fixture.arena().peak_bytes(), budget.vram_bytes);
      EXPECT_LE(fixture.memory.host_plan.memory_bytes, budget.ram_bytes);
    }
  }
}

TEST(DeviceTier, ReadsWhatNoTierKeepsAndCopiesWhatTheDeviceDoesNot) {
  for (const Budget& budget : budgets()) {
    SCOPED_TRACE(text_of(budget));
    Fixture fixture(budget);
    ASSERT_TRUE(fixture.sweep());
    uint64_t copied = 0;
    for (size_t i = 0; i < fixture.plan.list.tiles.size(); ++i) {
      if (!fixture.plan.stays(i)) {
        copied += fixture.plan.list.tiles[i].data_bytes;
      }
    }
    (void)fixture.stream->take_counters();
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(fixture.sweep());
      const IoCounters io = fixture.stream->take_counters();
      EXPECT_EQ(io.read_bytes, fixture.streamed_bytes());
      EXPECT_EQ(io.cache_bytes, fixture.plan.pinned_bytes() + fixture.kept_bytes());
      EXPECT_EQ(io.copied_bytes, copied);
    }
    EXPECT_EQ(fixture.stream->resident_bytes(), fixture.plan.pinned_bytes() + fixture.kept_bytes());
  }
}

TEST(DeviceTier, NothingIsCopiedTwiceWhenTheDeviceHoldsAll) {
  Fixture fixture({kMuch, 600 * kKiB});
  ASSERT_FALSE(fixture.plan.streams());
  ASSERT_TRUE(fixture.sweep());
  (void)fixture.stream->take_counters();
  ASSERT_TRUE(fixture.sweep());
  const IoCounters io = fixture.stream->take_counters();
  EXPECT_EQ(io.read_bytes, 0U);
  EXPECT_EQ(io.copied_bytes, 0U);
}

TEST(DeviceTier, LooksUpEmbeddingsOfTheHostAndOfTheDevice) {
  for (const Budget& budget : budgets()) {
    for (const bool tied : {true, false}) {
      SCOPED_TRACE(text_of(budget) + (tied ? ", tied" : ""));
      Fixture fixture(budget, tied);
      const store::ShardTensor& tensor = fixture.model.shards[0].tensors[0];
      std::vector<float> row(fixture.model.architecture.hidden);
      auto* const on_device = reinterpret_cast<float*>(fixture.memory.block.memory().data());
      for (int pass = 0; pass < 2; ++pass) {
        for (uint64_t token = 0; token < tensor.rows; token += 13) {
          ASSERT_TRUE(fixture.stream->lookup(0, token, on_device));
          fixture.arena().read(std::as_writable_bytes(std::span(row)),
                               fixture.memory.block.memory().data());
          const std::string& content = fixture.model.files[0]->content();
          EXPECT_EQ(0, std::memcmp(row.data(),
                                   content.data() + tensor.offset_bytes + token * tensor.row_bytes,
                                   tensor.row_bytes));
        }
        ASSERT_TRUE(fixture.sweep());
      }
    }
  }
}

TEST(DeviceTier, AGivenUpSweepBeginsAfresh) {
  for (const Budget& budget : budgets()) {
    SCOPED_TRACE(text_of(budget));
    Fixture fixture(budget, true, {}, 200 * kMiB);
    for (size_t stop_after = 0; stop_after < fixture.plan.list.tiles.size(); stop_after += 5) {
      fixture.stream->begin_sweep(true);
      for (size_t i = 0; i < stop_after; ++i) {
        bool done = false;
        ASSERT_TRUE(fixture.stream->next_tile(done));
        if (i % 2 == 0 || i + 1 < stop_after) fixture.stream->release_tile();
      }
      ASSERT_TRUE(fixture.sweep(stop_after % 2 == 0));
    }
  }
}

TEST(DeviceTier, AFailedReadEndsTheSweepAndTheNextOneWorks) {
  for (const Budget& budget : budgets()) {
    SCOPED_TRACE(text_of(budget));
    Fixture fixture(budget);
    std::atomic<int> countdown{9};
    fixture.model.before_read = [&](uint64_t, size_t) -> Status {
      if (countdown.fetch_sub(1) != 0) return {};
      return Unexpected(ErrorCode::kIo, "injected");
    };
    const Status status = fixture.sweep();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().message, "injected");
    EXPECT_TRUE(fixture.sweep());
    fixture.stream.reset();
  }
}

TEST(DeviceTier, AFlippedBitIsFoundBeforeItIsCopied) {
  Fixture fixture({260 * kKiB, 600 * kKiB});
  const Tile& tile = fixture.plan.list.tiles[fixture.plan.list.tiles.size() / 2];
  fixture.model.files[tile.shard]->content()[tile.data_offset + 3] ^= 0x10;
  const Status status = fixture.sweep();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kData);
}

TEST(DeviceTier, AReadThatHangsKeepsHostMemoryOnly) {
  Fixture fixture({260 * kKiB, 600 * kKiB}, true,
                  {.reader = ReaderKind::kThreads, .readers = 2, .read_deadline_seconds = 0.05});
  std::atomic<bool> hang{true};
  fixture.model.before_read = [&](uint64_t, size_t) {
    while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Status();
  };
  const Status status = fixture.sweep();
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("did not come back"), std::string::npos);
  EXPECT_FALSE(fixture.stream->stop_reading(std::chrono::milliseconds(10)));
  const std::span<std::byte> memory = fixture.memory.slab.memory();
  for (const std::span<std::byte> part : fixture.stream->memory_being_read()) {
    EXPECT_GE(part.data(), memory.data());
    EXPECT_LE(part.data() + part.size(), memory.data() + memory.size());
  }
  hang = false;
  EXPECT_TRUE(fixture.stream->stop_reading(std::chrono::seconds(20)));
  fixture.stream.reset();
}

TEST(DeviceTier, RecordsCopies) {
  Fixture fixture({260 * kKiB, kMuch});
  ASSERT_TRUE(fixture.sweep());
  (void)fixture.stream->take_counters();
  fixture.stream->recorder().begin_sweep(false);
  ASSERT_TRUE(fixture.sweep());
  uint64_t copied = 0;
  for (const Span& span : fixture.stream->recorder().take().spans) {
    if (span.kind != Span::Kind::kCopy) continue;
    EXPECT_LE(span.begin, span.end);
    copied += span.read_bytes;
  }
  // What is copied ahead, to this sweep and of it to the next, is less than a ring.
  const uint64_t ring = fixture.plan.ring_slots * fixture.plan.ring_slot_bytes;
  const uint64_t used = fixture.stream->take_counters().copied_bytes;
  EXPECT_LE(copied, used + ring);
  EXPECT_GE(copied + ring, used);
}

TEST(SimulatedDevice, NeverGivesMoreThanItHas) {
  const auto device = make_simulated_device(kernels::scalar_backend(), 1, {64 * kKiB, 0});
  Arena& arena = *device->arena();
  {
    const Result<ArenaBlock> first = arena.allocate(40 * kKiB);
    ASSERT_TRUE(first);
    const Result<ArenaBlock> second = arena.allocate(40 * kKiB);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kTemporary);
    EXPECT_NE(second.error().message.find("24 KiB are free"), std::string::npos)
        << second.error().message;
    EXPECT_EQ(arena.used_bytes(), 40 * kKiB);
  }
  EXPECT_EQ(arena.used_bytes(), 0U);
  EXPECT_TRUE(arena.allocate(64 * kKiB));
  EXPECT_EQ(arena.peak_bytes(), 64 * kKiB);
}

TEST(SimulatedDevice, CopiesInOrderNoFasterThanItsBus) {
  constexpr uint64_t kBytes = 64 * kKiB;
  constexpr uint64_t kSpeed = 4 * kMiB;  // a second
  const auto device = make_simulated_device(kernels::scalar_backend(), 1, {4 * kBytes, kSpeed});
  Arena& arena = *device->arena();
  const ArenaBlock block = *arena.allocate(4 * kBytes);
  std::vector<std::byte> from(kBytes, std::byte{7});
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<int> ended;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 4; ++i) {
    arena.copy_in(block.memory().data() + i * kBytes, from, [&, i](auto) {
      const std::lock_guard lock(mutex);
      ended.push_back(i);
      changed.notify_all();
    });
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return ended.size() == 4; });
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(ended, (std::vector<int>{0, 1, 2, 3}));
  EXPECT_GE(taken.count(), 4.0 * kBytes / kSpeed);
  std::vector<std::byte> found(4 * kBytes);
  arena.read(found, block.memory().data());
  EXPECT_TRUE(
      std::all_of(found.begin(), found.end(), [](std::byte b) { return b == std::byte{7}; }));
}

TEST(HostPlan, KeepsWhatTheBudgetHoldsAndNamesTheLeast) {
  const MemoryModel model(tiny_architecture(false), kernels::NumberFormat::kF32, 7);
  const PlanInput little{&model.architecture, model.shards, 4 * kKiB};
  const Plan plan = *make_plan(little, 260 * kKiB);
  const Result<HostPlan> refused = make_host_plan(little, plan, 4 * kKiB);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConfig);
  EXPECT_NE(refused.error().remedy.find("give --ram at least "), std::string::npos);
  const uint64_t full = full_host_budget_bytes(little, plan);
  const HostPlan all = *make_host_plan(little, plan, full);
  EXPECT_EQ(all.kept_bytes(plan.list) + plan.pinned_bytes(), plan.list.total_bytes());
  EXPECT_LE(all.memory_bytes, full);
  uint64_t last = 0;
  for (uint64_t budget = all.memory_bytes / 2; budget < full; budget += full / 16) {
    const HostPlan some = *make_host_plan(little, plan, budget);
    EXPECT_LE(some.memory_bytes, budget);
    EXPECT_GE(some.kept_bytes(plan.list), last);
    last = some.kept_bytes(plan.list);
  }
}

}  // namespace
}  // namespace airllm::stream

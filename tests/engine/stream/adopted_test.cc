// Weights that lie in memory from before a restart.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

#include "engine/stream/device.h"
#include "engine/stream/weight_stream.h"
#include "tests/engine/stream/memory_model.h"

namespace airllm::stream {
namespace {

using testing::MemoryModel;
using testing::tiny_architecture;

// A model, and memory that outlasts its streams.
class Adopted : public ::testing::Test {
 protected:
  void prepare(bool tied, uint64_t budget = 64 * kMiB) {
    stream.reset();  // it reads ahead
    model.emplace(tiny_architecture(tied), kernels::NumberFormat::kF32, 7);
    plan = *make_plan({&model->architecture, model->shards}, budget);
    lasting = UniqueFd(::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(lasting.get(), static_cast<off_t>(plan.lasting_bytes())), 0);
    model->before_read = [this](uint64_t, size_t) {
      ++reads;
      return Status();
    };
    rows = model->shards[0].tensors[0].rows;
    start(false);
  }

  // A stream of the next process.
  void start(bool is_adopted, const StreamOptions& options = {}) {
    stream.reset();
    slab = std::move(
        *Slab::create(plan.lasting_offset(), UniqueFd(::dup(lasting.get())), plan.lasting_bytes()));
    StreamOptions more = options;
    more.is_adopted = is_adopted;
    stream.emplace(plan, model->shards, slab.memory(), kernels::scalar_backend(), more,
                   [] { return Status(); });
    reads = 0;
  }

  void look_up(const std::vector<uint64_t>& wanted) {
    const store::ShardTensor& tensor = model->shards[0].tensors[0];
    std::vector<float> row(model->architecture.hidden);
    for (const uint64_t at : wanted) {
      const Status status = stream->lookup(0, at, row.data());
      ASSERT_TRUE(status) << status.error().message;
      EXPECT_EQ(0, std::memcmp(row.data(),
                               model->files[0]->content().data() + tensor.offset_bytes +
                                   at * tensor.row_bytes,
                               tensor.row_bytes));
    }
  }

  // As a job does it: rows of the embedding once the sweep has begun, then all tiles.
  IoCounters sweep(const std::vector<uint64_t>& wanted) {
    stream->begin_sweep(true);
    look_up(wanted);
    for (size_t i = 0;; ++i) {
      bool done = false;
      const Result<model::TileView> view = stream->next_tile(done);
      EXPECT_TRUE(view) << view.error().message;
      if (!view || done) break;
      const Tile& tile = plan.list.tiles[i];
      EXPECT_EQ(
          0, std::memcmp(view->data, model->files[tile.shard]->content().data() + tile.data_offset,
                         tile.data_bytes))
          << "tile " << i;
      stream->release_tile();
    }
    return stream->take_counters();
  }

  // A byte of memory changes between two processes.
  void flip(uint64_t offset_in_slab) {
    const auto at = static_cast<off_t>(offset_in_slab - plan.lasting_offset());
    char byte = 0;
    ASSERT_EQ(::pread(lasting.get(), &byte, 1, at), 1);
    byte = static_cast<char>(byte ^ 0x10);
    ASSERT_EQ(::pwrite(lasting.get(), &byte, 1, at), 1);
  }

  std::atomic<uint64_t> reads{0};
  std::optional<MemoryModel> model;
  Plan plan;
  UniqueFd lasting;
  Slab slab;
  uint64_t rows = 0;
  std::optional<WeightStream> stream;  // last: its readers use the others
};

TEST_F(Adopted, TheFirstSweepReadsNothing) {
  for (const bool tied : {true, false}) {
    for (const ReaderKind reader : {ReaderKind::kAuto, ReaderKind::kThreads}) {
      prepare(tied);
      ASSERT_FALSE(plan.streams());
      const std::vector<uint64_t> wanted{3, rows - 1, 3, 200};
      EXPECT_GE(sweep(wanted).read_bytes, plan.list.total_bytes());
      start(true, {.reader = reader});
      EXPECT_EQ(stream->resident_bytes(), 0U);
      const IoCounters io = sweep(wanted);
      EXPECT_EQ(io.read_bytes, 0U);
      EXPECT_GE(io.cache_bytes, plan.list.total_bytes());
      EXPECT_EQ(reads, 0U);
      EXPECT_EQ(stream->resident_bytes(), plan.pinned_bytes());
      EXPECT_EQ(sweep(wanted).read_bytes, 0U);
    }
  }
}

// But for what yields its place in the workspace, which does not outlast the process.
TEST_F(Adopted, OfAStreamingPlanWhatIsPinnedIsNotRead) {
  for (const uint64_t budget : {260 * kKiB, 300 * kKiB, 340 * kKiB}) {
    prepare(true, budget);
    ASSERT_TRUE(plan.streams());
    sweep({});
    for (int restart = 0; restart < 3; ++restart) {
      start(true);
      const IoCounters io = sweep({});
      EXPECT_EQ(io.read_bytes, plan.list.total_bytes() - plan.lasting_bytes());
      EXPECT_EQ(io.cache_bytes, plan.lasting_bytes());
      EXPECT_EQ(sweep({}).cache_bytes, plan.pinned_bytes());
    }
  }
}

TEST_F(Adopted, ADamagedTileIsReadAgain) {
  prepare(false);
  sweep({});
  const size_t damaged = plan.list.tiles.size() / 2;
  const Tile& tile = plan.list.tiles[damaged];
  flip(plan.pinned_offset[damaged] + (tile.data_offset - tile.read_offset()) + 5);
  start(true);
  const IoCounters io = sweep({});
  EXPECT_EQ(io.read_bytes, tile.read_bytes());
  EXPECT_EQ(io.cache_bytes, plan.list.total_bytes() - tile.read_bytes());
  start(true);
  EXPECT_EQ(sweep({}).read_bytes, 0U);
}

TEST_F(Adopted, ADamagedRowOfATiedHeadIsReadAgain) {
  prepare(true);
  sweep({});
  const size_t first = plan.list.tied_begin;
  flip(plan.pinned_offset[first] + plan.list.tiles[first].data_offset -
       plan.list.tiles[first].read_offset());
  start(true);
  EXPECT_EQ(sweep({0, 1}).read_bytes, plan.list.tiles[first].read_bytes());
}

TEST_F(Adopted, BlocksOfTheEmbeddingHaveTheirPlaces) {
  prepare(false);
  ASSERT_GT(plan.embedding_blocks, 0U);
  EXPECT_EQ(plan.embedding_slots, 0U);
  look_up({7});
  const uint64_t read = stream->take_counters().read_bytes;
  EXPECT_GT(read, 0U);
  start(true);
  look_up({7});
  EXPECT_EQ(stream->take_counters().read_bytes, 0U);
  // One that nobody has asked for, and one that is damaged, are read.
  if (plan.embedding_blocks > 1) {
    look_up({rows - 1});
    EXPECT_GT(stream->take_counters().read_bytes, 0U);
  }
  const store::ShardTensor& tensor = model->shards[0].tensors[0];
  const uint64_t block = 7 / tensor.rows_per_block;
  flip(plan.lasting_offset() + block * plan.embedding_slot_bytes + tensor.row_bytes + 1);
  start(true);
  look_up({7, 8});
  EXPECT_EQ(stream->take_counters().read_bytes, read);
}

TEST_F(Adopted, WhatWasNeverReadIsRead) {
  prepare(true);
  start(true);
  const IoCounters io = sweep({5});
  EXPECT_EQ(io.read_bytes, plan.list.total_bytes());
}

TEST_F(Adopted, AGivenUpSweepLosesNothing) {
  prepare(true);
  sweep({});
  for (size_t stop_after = 0; stop_after < plan.list.tiles.size(); stop_after += 3) {
    start(true);
    stream->begin_sweep(true);
    for (size_t i = 0; i < stop_after; ++i) {
      bool done = false;
      ASSERT_TRUE(stream->next_tile(done));
      stream->release_tile();
    }
    EXPECT_EQ(sweep({4}).read_bytes, 0U);
  }
}

TEST(Slab, ItsLastingPartIsAFileOfItsOwn) {
  UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 8 * kPageBytes), 0);
  const int same = ::dup(file.get());
  Slab slab = *Slab::create(3 * kPageBytes, std::move(file), 8 * kPageBytes);
  ASSERT_EQ(slab.memory().size(), 11 * kPageBytes);
  std::fill(slab.memory().begin(), slab.memory().end(), std::byte{1});
  char byte = 0;
  ASSERT_EQ(::pread(same, &byte, 1, 8 * kPageBytes - 1), 1);
  EXPECT_EQ(byte, 1);
  // Across the border between the two.
  slab.discard(slab.memory().subspan(2 * kPageBytes, 2 * kPageBytes));
  EXPECT_EQ(slab.memory()[2 * kPageBytes - 1], std::byte{1});
  EXPECT_EQ(slab.memory()[2 * kPageBytes], std::byte{0});
  EXPECT_EQ(slab.memory()[4 * kPageBytes - 1], std::byte{0});
  EXPECT_EQ(slab.memory()[4 * kPageBytes], std::byte{1});
  ASSERT_EQ(::pread(same, &byte, 1, kPageBytes - 1), 1);
  EXPECT_EQ(byte, 0);
  slab = Slab();
  ASSERT_EQ(::pread(same, &byte, 1, kPageBytes), 1);
  EXPECT_EQ(byte, 1);
  ::close(same);
}

}  // namespace
}  // namespace airllm::stream

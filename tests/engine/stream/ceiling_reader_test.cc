#include "engine/stream/ceiling_reader.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "tests/engine/store/tiny_checkpoint.h"
#include "tests/engine/stream/memory_model.h"

namespace airllm::stream {
namespace {

using namespace std::chrono_literals;

// Counts the bytes of each place that are read; fails or hangs where it is told to.
class WatchedFile : public store::DiskFile {
 public:
  ~WatchedFile() override = default;
  Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const override {
    std::unique_lock lock(mutex_);
    if (offset_bytes == bad_offset) return Unexpected(ErrorCode::kIo, "watched: bad sector");
    goes_on_.wait(lock, [&] { return offset_bytes != hanging_offset; });
    for (uint64_t at = offset_bytes; at < offset_bytes + out.size(); at += kPageBytes) ++pages[at];
    return {};
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    hanging_offset = kNowhere;
    goes_on_.notify_all();
  }
  Status write_at(uint64_t, std::span<const std::byte>) override { return {}; }
  Status sync() override { return {}; }
  Result<uint64_t> size_bytes() const override { return kGiB; }
  Result<std::string> identity() const override { return std::string(); }
  const std::string& path() const override { return path_; }
  bool is_direct() const override { return false; }

  static constexpr uint64_t kNowhere = ~uint64_t{0};
  uint64_t bad_offset = kNowhere;
  uint64_t hanging_offset = kNowhere;
  mutable std::map<uint64_t, int> pages;  // how often each was read

 private:
  const std::string path_ = "watched";
  mutable std::mutex mutex_;
  mutable std::condition_variable goes_on_;
};

class CeilingReaderTest : public ::testing::TestWithParam<ReaderKind> {
 protected:
  std::unique_ptr<CeilingReader> reader(std::vector<FileExtent> extents) {
    return std::move(*CeilingReader::create(std::move(extents), GetParam(), nullptr));
  }
  std::vector<FileExtent> extents() const {
    return {{&file_, 0, 3 * kMiB + kPageBytes}, {&file_, 100 * kMiB, 5 * kMiB}};
  }
  uint64_t extent_bytes() const { return 8 * kMiB + kPageBytes; }

  WatchedFile file_;
};

TEST_P(CeilingReaderTest, ReadsAllExtentsRoundAndRound) {
  const auto reading = reader(extents());
  EXPECT_STREQ(reading->reader_name(), usable_reader(GetParam()));
  const auto rate = reading->measure({2 * extent_bytes(), 0ms, 10s, 10s}, {});
  ASSERT_TRUE(rate.has_value()) << rate.error().message;
  EXPECT_GE(rate->bytes, 2 * extent_bytes());
  EXPECT_GT(rate->seconds, 0);
  EXPECT_TRUE(reading->is_back());
  EXPECT_EQ(file_.pages.size(), extent_bytes() / kPageBytes);
  uint64_t pages = 0;
  for (const auto& [offset, times] : file_.pages) {
    EXPECT_GE(times, 2) << offset;
    pages += static_cast<uint64_t>(times);
  }
  EXPECT_EQ(pages * kPageBytes, rate->bytes);
}

TEST_P(CeilingReaderTest, ReadsForAsLongAsItIsTold) {
  const auto reading = reader(extents());
  const auto least = reading->measure({1, 50ms, 10s, 10s}, {});
  ASSERT_TRUE(least.has_value());
  EXPECT_GE(least->seconds, 0.05);
  const auto most = reading->measure({kGiB * 1024, 0ms, 50ms, 10s}, {});
  ASSERT_TRUE(most.has_value());
  EXPECT_GE(most->seconds, 0.05);
  EXPECT_LT(most->bytes, kGiB * 1024);
}

TEST_P(CeilingReaderTest, AnErrorIsTheFiles) {
  file_.bad_offset = 101 * kMiB;
  const auto failed = reader({{&file_, 100 * kMiB, 16 * kMiB}})->measure({kGiB, 0ms, 10s, 10s}, {});
  const auto bad = reader({{&file_, 101 * kMiB, 4 * kMiB}})->measure({kGiB, 0ms, 10s, 10s}, {});
  // Reads of threads are longer, and may not begin there.
  EXPECT_TRUE(!failed.has_value() || GetParam() == ReaderKind::kThreads);
  ASSERT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().message, "watched: bad sector");
}

TEST_P(CeilingReaderTest, AReadThatDoesNotComeBackIsLeftAlone) {
  file_.hanging_offset = 100 * kMiB;
  const auto reading = reader(extents());
  const auto late = reading->measure({kGiB * 1024, 0ms, 50ms, 100ms}, {});
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code, ErrorCode::kIo);
  EXPECT_NE(late.error().message.find("watched"), std::string::npos);
  EXPECT_FALSE(reading->is_back());
  file_.let_go();
  while (!reading->is_back()) std::this_thread::sleep_for(1ms);
}

TEST_P(CeilingReaderTest, CanBeCancelledWhileAReadHangs) {
  file_.hanging_offset = 0;
  const auto reading = reader(extents());
  std::stop_source source;
  std::jthread canceller([&] {
    std::this_thread::sleep_for(20ms);
    source.request_stop();
  });
  const auto cancelled = reading->measure({kGiB * 1024, 0ms, 100s, 100s}, source.get_token());
  ASSERT_FALSE(cancelled.has_value());
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(reading->is_back());
  file_.let_go();
}

TEST_P(CeilingReaderTest, ReadsRealFiles) {
  const store::TemporaryFolder folder;
  store::write_file(folder / "file", std::string(2 * kMiB + 17, 'x'));
  const auto file =
      std::move(*store::system_disk().open(folder / "file", store::OpenMode::kReadDirect));
  const uint64_t bytes = file->is_direct() ? 2 * kMiB + kPageBytes : 2 * kMiB + 17;
  const auto rate = reader({{file.get(), 0, bytes}})->measure({5 * bytes, 0ms, 10s, 10s}, {});
  ASSERT_TRUE(rate.has_value()) << rate.error().message;
  EXPECT_GE(rate->bytes, 5 * bytes);
}

INSTANTIATE_TEST_SUITE_P(Kinds, CeilingReaderTest,
                         ::testing::Values(ReaderKind::kAuto, ReaderKind::kThreads),
                         [](const auto& kind) {
                           return kind.param == ReaderKind::kAuto ? "Auto" : "Threads";
                         });

TEST(ExtentsToRead, AreWhatStreamsOrAllOfIt) {
  const testing::MemoryModel model(testing::tiny_architecture(true), kernels::NumberFormat::kF32,
                                   7);
  const PlanInput input{&model.architecture, model.shards};
  const auto sum = [](const std::vector<FileExtent>& extents) {
    uint64_t bytes = 0;
    for (const FileExtent& extent : extents) bytes += extent.bytes;
    return bytes;
  };
  const Plan full = *make_plan(input, full_budget_bytes(input));
  ASSERT_FALSE(full.streams());
  uint64_t weights = 0;
  for (const Tile& tile : full.list.tiles) weights += extent_of(tile, model.shards).bytes;
  const std::vector<FileExtent> all = extents_to_read(full, model.shards);
  EXPECT_LE(sum(all), weights);  // whole pages may overlap
  EXPECT_LT(all.size(), full.list.tiles.size());
  const Plan small = *make_plan(input, 300 * kKiB);
  ASSERT_TRUE(small.streams());
  const uint64_t streamed = sum(extents_to_read(small, model.shards));
  EXPECT_LT(streamed, sum(all));
  EXPECT_GT(streamed, 0U);
  for (size_t i = 1; i < all.size(); ++i) {
    const bool is_apart = all[i].file != all[i - 1].file ||
                          all[i].offset_bytes > all[i - 1].offset_bytes + all[i - 1].bytes;
    EXPECT_TRUE(is_apart);
  }
}

}  // namespace
}  // namespace airllm::stream

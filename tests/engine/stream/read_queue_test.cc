#include "engine/stream/read_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <set>
#include <stop_token>
#include <thread>

#include "base/units.h"
#include "engine/stream/device.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::stream {
namespace {

constexpr uint64_t kPages = 64;

std::string content() {
  std::string out(kPages * kPageBytes, '\0');
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<char>(i * 7 + i / 4096);
  return out;
}

// A file that has no descriptor, and fails where it is told to.
class OddFile : public store::DiskFile {
 public:
  Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const override {
    if (offset_bytes == bad_offset) return Unexpected(ErrorCode::kIo, "odd: bad sector");
    std::fill(out.begin(), out.end(), std::byte{7});
    return {};
  }
  Status write_at(uint64_t, std::span<const std::byte>) override { return {}; }
  Status sync() override { return {}; }
  Result<uint64_t> size_bytes() const override { return kPages * kPageBytes; }
  Result<std::string> identity() const override { return std::string(); }
  const std::string& path() const override { return path_; }
  bool is_direct() const override { return false; }

  uint64_t bad_offset = ~uint64_t{0};

 private:
  std::string path_ = "odd";
};

enum class Kind { kBlocking, kUring, kUringRegistered };

class ReadQueueTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    store::write_file(folder_ / "file", content());
    file_ = std::move(*store::system_disk().open(folder_ / "file", store::OpenMode::kReadDirect));
    slab_ = std::move(*Slab::create(kPages * kPageBytes));
    if (GetParam() == Kind::kBlocking) {
      queue_ = make_blocking_queue();
      return;
    }
    const bool registers = GetParam() == Kind::kUringRegistered;
    auto made = make_uring_queue(8, registers ? slab_.memory() : std::span<std::byte>());
    if (!made) GTEST_SKIP() << "no io_uring here: " << made.error().message;
    queue_ = std::move(*made);
  }

  std::span<std::byte> pages(uint64_t first, uint64_t count) {
    return slab_.memory().subspan(first * kPageBytes, count * kPageBytes);
  }
  // The next end; wakes are passed over.
  EndedRead next_end() {
    for (;;) {
      if (std::optional<EndedRead> ended = queue_->wait()) return std::move(*ended);
    }
  }

  store::TemporaryFolder folder_;
  std::unique_ptr<store::DiskFile> file_;
  Slab slab_;
  std::unique_ptr<ReadQueue> queue_;
};

TEST_P(ReadQueueTest, ReadsAsManyAtOnceAsThereIsRoomFor) {
  const std::string expected = content();
  std::map<size_t, uint64_t> under_way;  // token to first page
  uint64_t next = 0;
  while (next < kPages || !under_way.empty()) {
    while (next < kPages && queue_->room() > 0) {
      queue_->begin({file_.get(), next * kPageBytes, pages(next, 2)}, next);
      under_way[next] = next;
      next += 2;
    }
    const EndedRead ended = next_end();
    ASSERT_TRUE(ended.status) << ended.status.error().message;
    ASSERT_EQ(under_way.erase(ended.token), 1U);
  }
  EXPECT_EQ(std::memcmp(slab_.memory().data(), expected.data(), expected.size()), 0);
}

TEST_P(ReadQueueTest, AnEndBeforeTheReadIsToldByTheFile) {
  queue_->begin({file_.get(), (kPages - 1) * kPageBytes, pages(0, 4)}, 3);
  const EndedRead ended = next_end();
  EXPECT_EQ(ended.token, 3U);
  ASSERT_FALSE(ended.status);
  EXPECT_EQ(ended.status.error().code, ErrorCode::kData);
  EXPECT_NE(ended.status.error().message.find(folder_ / "file"), std::string::npos);
  EXPECT_NE(ended.status.error().message.find("truncated"), std::string::npos);
}

TEST_P(ReadQueueTest, AReadMayEndWithTheFile) {
  store::write_file(folder_ / "short", content().substr(0, kPageBytes + 100));
  const auto file = *store::system_disk().open(folder_ / "short", store::OpenMode::kReadDirect);
  if (!file->is_direct()) GTEST_SKIP() << "no O_DIRECT on " << folder_.path();
  queue_->begin({file.get(), 0, pages(0, 2)}, 0);
  EXPECT_TRUE(next_end().status);
}

TEST_P(ReadQueueTest, AFileWithoutDescriptorReadsItself) {
  OddFile odd;
  odd.bad_offset = kPageBytes;
  queue_->begin({&odd, 0, pages(0, 1)}, 1);
  const EndedRead good = next_end();
  EXPECT_TRUE(good.status);
  EXPECT_EQ(pages(0, 1).back(), std::byte{7});
  queue_->begin({&odd, kPageBytes, pages(1, 1)}, 2);
  const EndedRead bad = next_end();
  EXPECT_EQ(bad.token, 2U);
  ASSERT_FALSE(bad.status);
  EXPECT_NE(bad.status.error().message.find("bad sector"), std::string::npos);
}

TEST_P(ReadQueueTest, WakeEndsAWaitForAReadThatDoesNotEnd) {
  if (GetParam() == Kind::kBlocking) return;  // it waits in the read itself
  // A pipe into which nothing is written yet.
  class Pipe : public OddFile {
   public:
    int descriptor() const override { return fds[0]; }
    int fds[2] = {-1, -1};
  } pipe;
  ASSERT_EQ(::pipe2(pipe.fds, O_CLOEXEC), 0);
  queue_->begin({&pipe, 0, pages(0, 1)}, 5);
  std::jthread waker([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    queue_->wake();
  });
  EXPECT_FALSE(queue_->wait().has_value());
  queue_->wake();
  EXPECT_FALSE(queue_->wait().has_value());
  const std::string page(kPageBytes, 'x');
  ASSERT_EQ(::write(pipe.fds[1], page.data(), page.size()), static_cast<ssize_t>(page.size()));
  const EndedRead ended = next_end();
  EXPECT_EQ(ended.token, 5U);
  EXPECT_TRUE(ended.status);
  EXPECT_EQ(pages(0, 1).front(), std::byte{'x'});
  ::close(pipe.fds[0]);
  ::close(pipe.fds[1]);
}

std::string kind_name(const testing::TestParamInfo<Kind>& parameter) {
  switch (parameter.param) {
    case Kind::kBlocking: return "blocking";
    case Kind::kUring: return "uring";
    case Kind::kUringRegistered: return "uring_registered";
  }
  return "?";
}

// Calls that a signal interrupts go on, and no read is lost or ended twice.
TEST_P(ReadQueueTest, AStormOfSignalsChangesNothing) {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  struct sigaction before {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t reader = ::pthread_self();
  std::atomic<uint64_t> signals{0};
  std::jthread storm([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (::pthread_kill(reader, SIGUSR1) == 0) ++signals;
    }
  });
  const std::string expected = content();
  uint64_t ended = 0, begun = 0;
  std::set<size_t> under_way;
  while (ended < 5'000 || signals < 1'000) {
    while (queue_->room() > 0) {
      const uint64_t page = begun++ % kPages;
      if (!under_way.insert(page).second) continue;  // still
      queue_->begin({file_.get(), page * kPageBytes, pages(page, 1)}, page);
    }
    const EndedRead read = next_end();
    ASSERT_TRUE(read.status) << read.status.error().message;
    ASSERT_EQ(under_way.erase(read.token), 1U);
    ASSERT_EQ(0, std::memcmp(pages(read.token, 1).data(), expected.data() + read.token * kPageBytes,
                             kPageBytes));
    std::fill_n(pages(read.token, 1).begin(), kPageBytes, std::byte{0});
    ++ended;
  }
  while (!under_way.empty()) under_way.erase(next_end().token);
  storm = {};
  ASSERT_EQ(::sigaction(SIGUSR1, &before, nullptr), 0);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ReadQueueTest,
                         testing::Values(Kind::kBlocking, Kind::kUring, Kind::kUringRegistered),
                         kind_name);

}  // namespace
}  // namespace airllm::stream

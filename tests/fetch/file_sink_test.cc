#include "fetch/file_sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <future>
#include <random>
#include <thread>

#include "base/units.h"
#include "tests/fetch/scratch_file.h"

namespace airllm::fetch {
namespace {

const BootId kBoot{std::byte{1}};

std::vector<std::byte> random_bytes(size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::vector<std::byte> out(size);
  for (std::byte& byte : out) byte = static_cast<std::byte>(random());
  return out;
}

std::string digest_of(std::span<const std::byte> bytes, HashKind kind = HashKind::kSha256) {
  StreamHash hash(kind, bytes.size());
  hash.update(bytes);
  return hash.digest();
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class FileSinks : public ::testing::Test {
 protected:
  std::unique_ptr<FileSink> open(std::span<const std::byte> bytes) {
    JournalSubject subject{bytes.size(), HashKind::kSha256, digest_of(bytes), 0};
    auto sink = FileSink::open(data_.descriptor(), journal_.descriptor(), subject, kBoot, [] {});
    AIRLLM_CHECK(sink.has_value());
    return std::move(*sink);
  }

  // Brings up to `count` bytes of the next piece.
  static void bring(FileSink& sink, std::span<const std::byte> bytes, uint64_t count) {
    auto piece = sink.plan().take(UINT64_MAX, kMiB);
    ASSERT_TRUE(piece.has_value());
    const uint64_t begin = piece->position;
    const auto part = bytes.subspan(begin, std::min(count, piece->end - begin));
    sink.count_received(piece->lane, part.size());
    ASSERT_TRUE(sink.write(*piece, begin, part).has_value());
    sink.plan().give_back(*piece);
  }

  template <typename Condition>
  static bool eventually(Condition condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  ScratchFile data_;
  ScratchFile journal_;
};

TEST_F(FileSinks, HashWhatComes) {
  const auto bytes = random_bytes(5 * kMiB + 12345);
  const auto sink = open(bytes);
  while (!sink->plan().is_complete()) bring(*sink, bytes, kMiB);
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_EQ(sink->look().digest, digest_of(bytes));
  EXPECT_EQ(sink->look().hashed, bytes.size());
  EXPECT_EQ(data_.content(), text_of(bytes));
}

TEST_F(FileSinks, AnEmptyFileIsHashedAtOnce) {
  const auto sink = open({});
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_EQ(sink->look().digest, digest_of({}));
}

// What was hashed may be gone: the one who ordered it has used it.
TEST_F(FileSinks, GoOnWithoutReadingThePrefixAgain) {
  const auto bytes = random_bytes(3 * kMiB + 7);
  uint64_t hashed = 0;
  {
    const auto sink = open(bytes);
    bring(*sink, bytes, kMiB);
    bring(*sink, bytes, 70001);
    ASSERT_TRUE(eventually([&] { return sink->look().hashed >= kMiB; }));
    hashed = sink->look().hashed;
  }
  ASSERT_EQ(::fallocate(data_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                        static_cast<off_t>(hashed)),
            0);
  const auto sink = open(bytes);
  EXPECT_EQ(sink->look().hashed, hashed);
  EXPECT_EQ(sink->plan().missing(), bytes.size() - kMiB - 70001);
  EXPECT_EQ(sink->received(), kMiB + 70001);
  while (!sink->plan().is_complete()) bring(*sink, bytes, 100000);
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_EQ(sink->look().digest, digest_of(bytes));
  EXPECT_EQ(sink->received(), bytes.size());
  EXPECT_EQ(data_.content().substr(hashed), text_of(bytes).substr(hashed));
}

TEST_F(FileSinks, DoNotWriteWhatIsThere) {
  const auto bytes = random_bytes(4 * kBlockBytes);
  const auto sink = open(bytes);
  bring(*sink, bytes, kBlockBytes + 10);
  auto all = sink->plan().take_all();
  std::vector<std::byte> wrong(kBlockBytes + 10, std::byte{0});
  ASSERT_TRUE(sink->write(*all, 0, wrong).has_value());
  ASSERT_TRUE(sink->write(*all, kBlockBytes + 10, std::span(bytes).subspan(kBlockBytes + 10)));
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_EQ(data_.content(), text_of(bytes));
}

TEST_F(FileSinks, DataThatWereCutBeginAnew) {
  const auto bytes = random_bytes(3 * kMiB);
  {
    const auto sink = open(bytes);
    bring(*sink, bytes, kMiB);
    ASSERT_TRUE(eventually([&] { return sink->look().hashed == kMiB; }));
  }
  ASSERT_EQ(::ftruncate(data_.fd(), kMiB / 2), 0);
  const auto sink = open(bytes);
  EXPECT_EQ(sink->look().hashed, 0U);
  EXPECT_EQ(sink->plan().missing(), bytes.size());
  EXPECT_NE(sink->fresh_because(), "");
}

TEST_F(FileSinks, StartOver) {
  const auto bytes = random_bytes(kMiB + 3);
  const auto sink = open(bytes);
  std::vector<std::byte> wrong = bytes;
  wrong[1000] ^= std::byte{1};
  while (!sink->plan().is_complete()) bring(*sink, wrong, kMiB);
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_NE(sink->look().digest, digest_of(bytes));
  ASSERT_TRUE(sink->restart().has_value());
  EXPECT_EQ(sink->look().hashed, 0U);
  while (!sink->plan().is_complete()) bring(*sink, bytes, kMiB);
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_EQ(sink->look().digest, digest_of(bytes));
}

TEST_F(FileSinks, AFullDiskIsTold) {
  const auto bytes = random_bytes(3 * kMiB);
  const auto sink = open(bytes);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit low{2 * kMiB + 100, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &low);
  Status status;
  while (status && !sink->plan().is_complete()) {
    auto piece = sink->plan().take(UINT64_MAX, kMiB);
    const uint64_t begin = piece->position;
    status = sink->write(*piece, begin, std::span(bytes).subspan(begin, piece->end - begin));
    sink->plan().give_back(*piece);
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_NE(status.error().message.find("of 3145728"), std::string::npos) << status.error().message;
  // What was written is known, and it goes on.
  while (!sink->plan().is_complete()) bring(*sink, bytes, kMiB);
  ASSERT_TRUE(eventually([&] { return sink->look().digest.has_value(); }));
  EXPECT_EQ(sink->look().digest, digest_of(bytes));
}

TEST(Descriptors, AreTwoFilesForReadingAndWriting) {
  const ScratchFile one;
  const ScratchFile two;
  EXPECT_TRUE(check_descriptors(one.fd(), two.fd()).has_value());
  EXPECT_FALSE(check_descriptors(one.fd(), one.fd()).has_value());
  const UniqueFd same(::dup(one.fd()));
  EXPECT_FALSE(check_descriptors(one.fd(), same.get()).has_value());
  const std::string path = "/proc/self/fd/" + std::to_string(one.fd());
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR | O_APPEND}) {
    const UniqueFd other(::open(path.c_str(), flags | O_CLOEXEC));
    EXPECT_FALSE(check_descriptors(other.get(), two.fd()).has_value()) << flags;
    EXPECT_FALSE(check_descriptors(two.fd(), other.get()).has_value()) << flags;
  }
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_FALSE(check_descriptors(null.get(), two.fd()).has_value());
  EXPECT_FALSE(check_descriptors(-1, two.fd()).has_value());
}

}  // namespace
}  // namespace airllm::fetch

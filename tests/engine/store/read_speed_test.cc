#include "engine/store/read_speed.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

TEST(ReadSpeed, IsOfTheLongestFile) {
  const TemporaryFolder folder;
  write_file(folder / "short", std::string(100, 'x'));
  write_file(folder / "long", std::string(3 * kMiB + 17, 'x'));
  const Result<ReadSpeed> speed = measure_read_speed(system_disk(), folder.path(), "/nowhere", {});
  ASSERT_TRUE(speed.has_value()) << speed.error().message;
  EXPECT_EQ(speed->path, folder / "long");
  EXPECT_EQ(speed->bytes, 3 * kMiB + 17);
  EXPECT_GT(speed->seconds, 0);
}

TEST(ReadSpeed, StopsAfter64MiB) {
  const TemporaryFolder folder;
  write_file(folder / "long", std::string(65 * kMiB, 'x'));
  const Result<ReadSpeed> speed = measure_read_speed(system_disk(), folder.path(), "/nowhere", {});
  ASSERT_TRUE(speed.has_value()) << speed.error().message;
  EXPECT_LE(speed->bytes, 64 * kMiB);
  EXPECT_GE(speed->bytes, 4 * kMiB);
  EXPECT_LT(speed->seconds, 10);
}

TEST(ReadSpeed, WithoutAFileOneIsMadeAndRemoved) {
  const TemporaryFolder folder;
  const Result<ReadSpeed> speed = measure_read_speed(system_disk(), "", folder.path(), {});
  ASSERT_TRUE(speed.has_value()) << speed.error().message;
  EXPECT_EQ(speed->bytes, 8 * kMiB);
  EXPECT_TRUE(system_disk().list(folder.path()).value().empty());
}

TEST(ReadSpeed, CanBeCancelledAndLeavesNothing) {
  const TemporaryFolder folder;
  std::stop_source source;
  source.request_stop();
  const Result<ReadSpeed> speed =
      measure_read_speed(system_disk(), "", folder.path(), source.get_token());
  ASSERT_FALSE(speed.has_value());
  EXPECT_EQ(speed.error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(system_disk().list(folder.path()).value().empty());
}

TEST(ReadSpeed, StoreThatCannotBeWrittenIsAnError) {
  const Result<ReadSpeed> speed = measure_read_speed(system_disk(), "", "/proc/nowhere", {});
  ASSERT_FALSE(speed.has_value());
  EXPECT_NE(speed.error().message.find("/proc/nowhere"), std::string::npos);
}

}  // namespace
}  // namespace airllm::store

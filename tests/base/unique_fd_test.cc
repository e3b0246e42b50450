#include "base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <utility>

namespace airllm {
namespace {

bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

UniqueFd open_null() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(UniqueFd, ClosesOnceAtTheEnd) {
  int raw = -1;
  {
    const UniqueFd fd = open_null();
    raw = fd.get();
    ASSERT_TRUE(fd.valid());
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(UniqueFd, MovingLeavesNothingBehind) {
  UniqueFd first = open_null();
  const int raw = first.get();
  const UniqueFd second = std::move(first);
  EXPECT_FALSE(first.valid());  // NOLINT: that a moved-from one is empty is what this tests
  EXPECT_EQ(second.get(), raw);
  EXPECT_TRUE(is_open(raw));
}

TEST(UniqueFd, AssigningClosesWhatWasHeld) {
  UniqueFd held = open_null();
  const int old = held.get();
  UniqueFd other = open_null();
  const int raw = other.get();
  held = std::move(other);
  EXPECT_FALSE(is_open(old));
  EXPECT_EQ(held.get(), raw);
}

TEST(UniqueFd, ReleaseGivesTheDescriptorAway) {
  UniqueFd fd = open_null();
  const int raw = fd.release();
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(is_open(raw));
  close(raw);
}

}  // namespace
}  // namespace airllm

#include "base/descriptor_passing.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace airllm {
namespace {

struct Pair {
  UniqueFd ours;
  UniqueFd theirs;
};

Pair make_pair() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

TEST(DescriptorPassing, BytesAndDescriptorsArrive) {
  const Pair pair = make_pair();
  const std::array<int, 2> sent{pair.ours.get(), pair.theirs.get()};
  ASSERT_EQ(send_some(pair.ours.get(), "hello", sent), 5);
  std::array<char, 64> buffer{};
  const auto received = receive(pair.theirs.get(), buffer);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(std::string_view(buffer.data(), received->bytes), "hello");
  EXPECT_EQ(received->descriptors.size(), 2U);
}

TEST(DescriptorPassing, NeitherWaits) {
  Pair pair = make_pair();
  std::array<char, 64> buffer{};
  EXPECT_TRUE(receive(pair.theirs.get(), buffer)->would_block);
  const std::string much(1 << 20, 'x');
  ssize_t sent = 0;
  while ((sent = send_some(pair.ours.get(), much)) > 0) {
  }
  EXPECT_EQ(errno, EAGAIN);
  pair.theirs.reset();
  EXPECT_LT(send_some(pair.ours.get(), much), 0);
  EXPECT_EQ(errno, EPIPE);  // and no signal
}

TEST(DescriptorPassing, TheEndIsTold) {
  Pair pair = make_pair();
  pair.ours.reset();
  std::array<char, 64> buffer{};
  EXPECT_TRUE(receive(pair.theirs.get(), buffer)->at_end);
}

std::vector<UniqueFd> some(size_t count) {
  std::vector<UniqueFd> out;
  for (size_t i = 0; i < count; ++i) out.emplace_back();
  return out;
}

TEST(DescriptorQueue, TheyBelongToTheFrameThatHoldsTheLastByte) {
  DescriptorQueue queue;
  EXPECT_TRUE(queue.add(some(2), 10).has_value());
  EXPECT_TRUE(queue.add(some(1), 25).has_value());
  EXPECT_EQ(queue.take(9).size(), 0U);
  EXPECT_EQ(queue.take(12).size(), 2U);
  EXPECT_EQ(queue.take(30).size(), 1U);
}

TEST(DescriptorQueue, MoreThanAMessageMayHaveAreRefused) {
  DescriptorQueue queue;
  EXPECT_TRUE(queue.add(some(kMaxPassedDescriptors), 1).has_value());
  EXPECT_EQ(queue.add(some(1), 2).error().code, ErrorCode::kProtocol);
}

}  // namespace
}  // namespace airllm

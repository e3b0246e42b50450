#include "daemon/admission.h"

#include <gtest/gtest.h>

#include <vector>

namespace airllm::daemon {
namespace {

constexpr ConnectionLimits kLimits{4, 3};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Admission, TakesWhatFits) {
  const std::vector<Seat> seats = {{1, true}, {1, false}, {2, true}};
  const Admission admission = admit(seats, 1, kLimits);
  EXPECT_FALSE(admission.evicted || admission.refused);
}

TEST(Admission, TheOldestSilentOneGivesWay) {
  const std::vector<Seat> seats = {{1, true}, {2, false}, {3, false}, {3, true}};
  const Admission admission = admit(seats, 4, kLimits);
  EXPECT_EQ(admission.evicted, 1U);
  EXPECT_FALSE(admission.refused);
}

TEST(Admission, AFullDaemonRefusesAndNamesTheLimit) {
  const std::vector<Seat> seats = {{1, true}, {2, true}, {3, true}, {3, true}};
  const Admission admission = admit(seats, 4, kLimits);
  EXPECT_FALSE(admission.evicted);
  ASSERT_TRUE(admission.refused);
  EXPECT_EQ(admission.refused->code, ErrorCode::kTemporary);
  EXPECT_TRUE(contains(admission.refused->message, "4 connections")) << admission.refused->message;
  EXPECT_TRUE(contains(admission.refused->remedy, "max-connections in"))
      << admission.refused->remedy;
}

TEST(Admission, AUserAtTheirLimitLosesTheirOwnSilentOnes) {
  const std::vector<Seat> seats = {{2, false}, {1, true}, {1, false}, {1, false}};
  EXPECT_EQ(admit(seats, 1, {100, 3}).evicted, 2U);
}

TEST(Admission, AUserAtTheirLimitIsRefusedThoughOthersAreSilent) {
  const std::vector<Seat> seats = {{2, false}, {1, true}, {1, true}, {1, true}};
  const Admission admission = admit(seats, 1, {100, 3});
  EXPECT_FALSE(admission.evicted);
  ASSERT_TRUE(admission.refused);
  EXPECT_TRUE(contains(admission.refused->message, "user 1 has 3 connections"));
  EXPECT_TRUE(contains(admission.refused->remedy, "max-connections-per-user"));
  const Admission other = admit(seats, 2, {100, 3});
  EXPECT_FALSE(other.evicted || other.refused);
}

}  // namespace
}  // namespace airllm::daemon

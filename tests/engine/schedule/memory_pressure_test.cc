#include "engine/schedule/memory_pressure.h"

#include <gtest/gtest.h>

#include "base/units.h"

namespace airllm::schedule {
namespace {

using std::chrono::seconds;

constexpr uint64_t kFull = 16 * kGiB;
constexpr Pressure kNone{0, 0};
constexpr Pressure kLittle{3, 0};
constexpr Pressure kHigh{40, 5};

TEST(ParsePressure, ReadsTheLastTenSeconds) {
  const auto pressure = parse_pressure(
      "some avg10=12.50 avg60=1.00 avg300=0.10 total=123\nfull avg10=2.25 avg60=0.00 total=7\n");
  ASSERT_TRUE(pressure);
  EXPECT_EQ(pressure->some_avg10, 12.5);
  EXPECT_EQ(pressure->full_avg10, 2.25);
  EXPECT_TRUE(parse_pressure("some avg10=1.00"));  // older kernels know no more of some files
}

TEST(ParsePressure, RefusesWhatIsNone) {
  for (const char* text :
       {"", "\n", "full avg10=1.00\n", "some avg60=1.00\n", "some avg10=x\n", "some avg10=-1\n",
        "some avg10=101\n", "some avg10=nan\n", "some avg10=1\nfull avg60=1\n"}) {
    EXPECT_FALSE(parse_pressure(text)) << text;
  }
}

class Policy : public ::testing::Test {
 protected:
  // What the budget is after `time` of this pressure, with a look every two seconds.
  uint64_t after(seconds time, const Pressure& pressure, uint64_t available = 8 * kGiB) {
    for (const Clock::time_point end = now_ + time; now_ < end; now_ += seconds(2)) {
      policy_.take(pressure, available, now_);
    }
    return policy_.budget_bytes();
  }

  Clock::time_point now_{seconds(1000)};
  BudgetPolicy policy_{kFull};
};

TEST_F(Policy, WithoutPressureTheBudgetStays) {
  EXPECT_EQ(after(seconds(600), kNone), kFull);
  EXPECT_EQ(after(seconds(600), kLittle), kFull);
}

TEST_F(Policy, ShrinksStepByStepButNotToNothing) {
  EXPECT_EQ(after(seconds(2), kHigh), kFull / 4 * 3);
  EXPECT_EQ(after(seconds(6), kHigh), kFull / 4 * 3);
  EXPECT_EQ(after(seconds(4), kHigh), kFull / 16 * 9);
  EXPECT_EQ(after(seconds(600), kHigh), kFull / 8);
}

TEST_F(Policy, EitherKindOfPressureCounts) {
  EXPECT_LT(after(seconds(2), {10, 0}), kFull);
  BudgetPolicy other(kFull);
  EXPECT_LT(other.take({0, 2}, kGiB, now_), kFull);
}

TEST_F(Policy, GrowsBackSlowlyAndOnlyToWhatItWas) {
  const uint64_t small = after(seconds(2), kHigh);
  EXPECT_EQ(after(seconds(56), kNone), small);
  EXPECT_EQ(after(seconds(6), kNone), small + kFull / 16);
  EXPECT_EQ(after(seconds(30), kNone), small + kFull / 8);
  EXPECT_EQ(after(seconds(600), kNone), kFull);
}

TEST_F(Policy, DoesNotGrowWhileThereIsSomePressureOrLittleFree) {
  const uint64_t small = after(seconds(2), kHigh);
  EXPECT_EQ(after(seconds(600), kLittle), small);
  EXPECT_EQ(after(seconds(600), kNone, kGiB), small);
  EXPECT_GT(after(seconds(2), kNone, 2 * kGiB), small);
}

// Tasks in a cgroup that thrash at its limit get nothing of what is given back.
TEST(IsShort, OfTheMachineCountsWhileItsMemoryIsShort) {
  constexpr uint64_t kBudget = 8 * kGiB;
  FreeMemory memory{.total_bytes = 16 * kGiB, .available_bytes = 10 * kGiB};
  EXPECT_FALSE(is_short(memory, kBudget));
  memory.available_bytes = 3 * kGiB;
  EXPECT_TRUE(is_short(memory, kBudget));
  memory.available_bytes = 10 * kGiB;
  memory.cgroup_bytes = 1 * kGiB;
  EXPECT_FALSE(is_short(memory, kBudget));
  memory.cgroup_bytes = 100 * kMiB;
  EXPECT_TRUE(is_short(memory, kBudget));
  EXPECT_TRUE(is_short({.total_bytes = 0, .available_bytes = 10 * kGiB}, kBudget));
}

}  // namespace
}  // namespace airllm::schedule

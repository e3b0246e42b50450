#include "daemon/byte_budget.h"

#include <gtest/gtest.h>

namespace airllm::daemon {
namespace {

using Taken = ByteBudget::Taken;

TEST(ByteBudget, LimitsAUserAndAll) {
  ByteBudget budget(100, 60);
  EXPECT_EQ(budget.take(1, 60), Taken::kYes);
  EXPECT_EQ(budget.take(1, 1), Taken::kUserIsFull);
  EXPECT_EQ(budget.take(2, 41), Taken::kAllIsFull);
  EXPECT_EQ(budget.take(2, 40), Taken::kYes);
  budget.give(1, 30);
  EXPECT_EQ(budget.take(2, 20), Taken::kYes);
  EXPECT_EQ(budget.take(2, 1), Taken::kUserIsFull);
  EXPECT_EQ(budget.take(3, 11), Taken::kAllIsFull);
  EXPECT_EQ(budget.take(3, 10), Taken::kYes);
}

TEST(ByteBudget, WhatIsForcedCounts) {
  ByteBudget budget(100, 60);
  EXPECT_EQ(budget.room(1), 60U);
  budget.force(1, 200);
  EXPECT_EQ(budget.room(1), 0U);
  EXPECT_EQ(budget.room(2), 0U);
  EXPECT_EQ(budget.take(2, 1), Taken::kAllIsFull);
  budget.give(1, 200);
  EXPECT_EQ(budget.take(2, 60), Taken::kYes);
}

}  // namespace
}  // namespace airllm::daemon

#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace airllm {
namespace {

Result<int> half(int number) {
  if (number % 2 != 0) return Unexpected(ErrorCode::kData, "odd", "give an even number");
  return number / 2;
}

Result<int> quarter(int number) {
  AIRLLM_TRY(const int once, half(number));
  AIRLLM_TRY(const int twice, half(once));
  return twice;
}

Status must_be_even(int number, int* reached) {
  AIRLLM_TRY_VOID(half(number));
  ++*reached;
  return {};
}

TEST(Result, HoldsAValueOrAnError) {
  EXPECT_TRUE(half(4).has_value());
  EXPECT_EQ(*half(4), 2);
  ASSERT_FALSE(half(3));
  EXPECT_EQ(half(3).error().code, ErrorCode::kData);
  EXPECT_EQ(half(3).error().message, "odd");
  EXPECT_EQ(half(3).error().remedy, "give an even number");
}

TEST(Result, TryReturnsTheFirstError) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_FALSE(quarter(6).has_value());
  EXPECT_FALSE(quarter(5).has_value());
}

TEST(Result, TryVoidStopsAtAnError) {
  int reached = 0;
  EXPECT_TRUE(must_be_even(2, &reached).has_value());
  EXPECT_FALSE(must_be_even(3, &reached).has_value());
  EXPECT_EQ(reached, 1);
}

TEST(Result, MovesWhatCannotBeCopied) {
  const auto make = [](bool good) -> Result<std::unique_ptr<int>> {
    if (!good) return Unexpected(ErrorCode::kIo, "no");
    return std::make_unique<int>(7);
  };
  std::unique_ptr<int> owned = make(true).value();
  EXPECT_EQ(*owned, 7);
  EXPECT_EQ(make(false).error().code, ErrorCode::kIo);
}

TEST(Result, ConvertsOnTheWayIn) {
  const auto make = []() -> Result<std::string> { return "text"; };
  EXPECT_EQ(make()->size(), 4U);
}

TEST(Result, AStatusIsGoodByDefault) {
  EXPECT_TRUE(Status().has_value());
  const Status bad = Unexpected(ErrorCode::kUsage, "bad");
  EXPECT_EQ(bad.error().message, "bad");
}

TEST(ResultDeathTest, TheWrongSideAborts) {
  EXPECT_DEATH(static_cast<void>(half(3).value()), "CHECK failed");
  EXPECT_DEATH(static_cast<void>(half(4).error()), "CHECK failed");
}

}  // namespace
}  // namespace airllm

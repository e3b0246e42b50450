#include "base/checked.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>

namespace airllm {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(Checked, AddFindsOverflowAtTheEdge) {
  EXPECT_EQ(checked_add<uint64_t>(kMax - 1, 1), kMax);
  EXPECT_FALSE(checked_add<uint64_t>(kMax, 1).has_value());
  EXPECT_FALSE(checked_add<int32_t>(std::numeric_limits<int32_t>::max(), 1).has_value());
  EXPECT_FALSE(checked_add<int32_t>(std::numeric_limits<int32_t>::min(), -1).has_value());
}

TEST(Checked, MulFindsOverflowAtTheEdge) {
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 32, (uint64_t{1} << 32) - 1),
            kMax - (uint64_t{1} << 32) + 1);
  EXPECT_FALSE(checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 32).has_value());
  EXPECT_EQ(checked_mul<uint64_t>(kMax, 0), 0U);
}

TEST(Checked, ProductOfNothingIsOne) { EXPECT_EQ(checked_product({}), 1U); }

TEST(Checked, ProductFindsOverflowInTheMiddle) {
  const std::array<uint64_t, 3> fits{3, 5, 7};
  EXPECT_EQ(checked_product(fits), 105U);
  const std::array<uint64_t, 3> too_large{uint64_t{1} << 40, uint64_t{1} << 40, 2};
  EXPECT_FALSE(checked_product(too_large).has_value());
}

TEST(Checked, CastKeepsTheSignInMind) {
  EXPECT_EQ(checked_cast<uint8_t>(255), uint8_t{255});
  EXPECT_FALSE(checked_cast<uint8_t>(256).has_value());
  EXPECT_FALSE(checked_cast<uint64_t>(-1).has_value());
  EXPECT_FALSE(checked_cast<int64_t>(kMax).has_value());
  EXPECT_EQ(checked_cast<int32_t>(int64_t{-2147483648}), std::numeric_limits<int32_t>::min());
}

TEST(Checked, RoundingKeepsMultiples) {
  EXPECT_EQ(round_up(0, 4096), 0U);
  EXPECT_EQ(round_up(1, 4096), 4096U);
  EXPECT_EQ(round_up(4096, 4096), 4096U);
  EXPECT_EQ(round_down(4095, 4096), 0U);
  EXPECT_EQ(round_down(8191, 4096), 4096U);
}

}  // namespace
}  // namespace airllm

#include "base/union_length.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace airllm {
namespace {

int64_t union_of(const std::vector<std::pair<int64_t, int64_t>>& intervals) {
  UnionLength length;
  for (const auto& [begin, end] : intervals) length.add(begin, end);
  return length.length();
}

TEST(UnionLength, CountsWhatOverlapsOnce) {
  EXPECT_EQ(union_of({}), 0);
  EXPECT_EQ(union_of({{0, 10}, {10, 20}}), 20);
  EXPECT_EQ(union_of({{0, 10}, {5, 12}, {20, 21}}), 13);
  EXPECT_EQ(union_of({{5, 6}, {7, 8}, {9, 10}, {0, 11}}), 11);  // a long one that ends last
  EXPECT_EQ(union_of({{-5, -1}, {3, 3}}), 4);
}

TEST(UnionLength, ManyApartAreAllCounted) {
  std::vector<std::pair<int64_t, int64_t>> intervals;
  for (int64_t i = 0; i < 1000; ++i) intervals.emplace_back(10 * i, 10 * i + 3);
  EXPECT_EQ(union_of(intervals), 3000);
}

}  // namespace
}  // namespace airllm

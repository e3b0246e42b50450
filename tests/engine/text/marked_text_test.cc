#include "engine/text/marked_text.h"

#include <gtest/gtest.h>

namespace airllm::text {
namespace {

TEST(MarkedText, RangesKeepTheirOrigins) {
  MarkedText text("abc", 0);
  text.append("de", kUserOrigin);
  text.append("f", kUserOrigin);
  text.append("gh", 2);
  EXPECT_EQ(text.runs().size(), 3U);
  EXPECT_EQ(text.origin_at(2), 0);
  EXPECT_EQ(text.origin_at(3), kUserOrigin);
  EXPECT_EQ(text.origin_at(7), 2);
  EXPECT_EQ(text.origin_of(6, 8), 2);
  EXPECT_EQ(text.origin_of(2, 4), kUserOrigin);
  const MarkedText middle = text.substr(2, 7);
  EXPECT_EQ(middle.text(), "cdefg");
  ASSERT_EQ(middle.runs().size(), 3U);
  EXPECT_EQ(middle.runs()[1].end, 4U);
  EXPECT_TRUE(text.substr(4, 4).empty());
}

}  // namespace
}  // namespace airllm::text

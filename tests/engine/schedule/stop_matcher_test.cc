#include "engine/schedule/stop_matcher.h"

#include <gtest/gtest.h>

namespace airllm::schedule {
namespace {

TEST(StopMatcher, WithoutStopsEverythingPasses) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, EndsBeforeTheFirstOfSeveral) {
  StopMatcher matcher({"world", "lo w"});
  EXPECT_EQ(matcher.push("hello world"), "hel");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("a E"), "a ");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("x"), "ENx");
  EXPECT_EQ(matcher.push("yEN"), "y");
  EXPECT_EQ(matcher.finish(), "EN");
}

TEST(StopMatcher, FindsAStopCutAnywhere) {
  const std::string text = "xababacy";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    StopMatcher matcher({"abac", ""});
    std::string shown = matcher.push(text.substr(0, cut));
    shown += matcher.push(text.substr(cut));
    EXPECT_EQ(shown, "xab") << cut;
    EXPECT_TRUE(matcher.matched());
  }
}

}  // namespace
}  // namespace airllm::schedule

#include "fetch/patience.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Clock::time_point kStart = Clock::time_point(std::chrono::hours(1));

TEST(Patience, GivesUpAfterSoManyTries) {
  Patience patience({.max_tries = 3}, 1);
  Clock::time_point now = kStart;
  EXPECT_TRUE(patience.failed(now, now));
  now = patience.not_before() + seconds(1);
  EXPECT_TRUE(patience.failed(now, now));
  now = patience.not_before() + seconds(1);
  EXPECT_FALSE(patience.failed(now, now));
  EXPECT_EQ(patience.tries(), 3);
}

TEST(Patience, ProgressBeginsAnew) {
  Patience patience({.max_tries = 2}, 1);
  for (int i = 0; i < 100; ++i) {
    const Clock::time_point now = kStart + i * std::chrono::hours(1);
    EXPECT_TRUE(patience.failed(now, now));
    patience.progressed();
  }
}

TEST(Patience, ThoseUnderWayTogetherAreOneTry) {
  Patience patience({.max_tries = 2}, 1);
  const Clock::time_point later = kStart + seconds(5);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(patience.failed(kStart, later + milliseconds(i)));
  EXPECT_EQ(patience.tries(), 1);
  EXPECT_FALSE(patience.failed(later + seconds(60), later + seconds(61)));
}

TEST(Patience, WaitsDoubleUpToTheLongestAndAreRandom) {
  const RetryRules rules{.max_tries = 1000, .first_wait = seconds(1), .longest_wait = seconds(8)};
  milliseconds longest{0};
  milliseconds first_longest{0};
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Patience patience(rules, seed);
    Clock::time_point now = kStart;
    for (int i = 0; i < 12; ++i) {
      patience.failed(now, now);
      const auto wait = std::chrono::duration_cast<milliseconds>(patience.not_before() - now);
      EXPECT_GE(wait.count(), 0);
      EXPECT_LE(wait, rules.longest_wait);
      if (i == 0) first_longest = std::max(first_longest, wait);
      longest = std::max(longest, wait);
      now = patience.not_before() + milliseconds(1);
    }
  }
  EXPECT_LE(first_longest, seconds(1));
  EXPECT_GT(first_longest, milliseconds(800));
  EXPECT_GT(longest, milliseconds(7000));
}

TEST(Patience, TheServersWishIsHeededAndBounded) {
  Patience patience({.first_wait = milliseconds(10), .longest_asked = seconds(100)}, 1);
  patience.failed(kStart, kStart, seconds(30));
  EXPECT_GE(patience.not_before(), kStart + seconds(30));
  EXPECT_LT(patience.not_before(), kStart + seconds(31));
  const Clock::time_point later = kStart + seconds(60);
  patience.failed(later, later, seconds(100000));
  EXPECT_GE(patience.not_before(), later + seconds(100));
  EXPECT_LT(patience.not_before(), later + seconds(101));
}

}  // namespace
}  // namespace airllm::fetch

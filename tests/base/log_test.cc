#include "base/log.h"

#include <gtest/gtest.h>

#include <string>

namespace airllm::log {
namespace {

std::string written(Level threshold, bool to_journal, Level level, const std::string& line) {
  init(threshold, to_journal);
  testing::internal::CaptureStderr();
  write(level, line);
  return testing::internal::GetCapturedStderr();
}

TEST(Log, ParsesLevelNames) {
  Level level = Level::kInfo;
  EXPECT_TRUE(parse_level("debug", level));
  EXPECT_EQ(level, Level::kDebug);
  EXPECT_TRUE(parse_level("error", level));
  EXPECT_EQ(level, Level::kError);
  EXPECT_FALSE(parse_level("Error", level));
  EXPECT_FALSE(parse_level("", level));
}

TEST(Log, LinesBelowTheLevelAreLeftOut) {
  EXPECT_EQ(written(Level::kWarning, false, Level::kInfo, "quiet"), "");
  EXPECT_NE(written(Level::kWarning, false, Level::kWarning, "heard").find("heard"),
            std::string::npos);
}

TEST(Log, ANameFromOutsideCannotForgeALine) {
  const std::string out =
      written(Level::kInfo, false, Level::kInfo, "model 'x\n2026 error: forged\x1b[2J'");
  EXPECT_EQ(out.find('\n'), out.size() - 1);
  EXPECT_EQ(out.find('\x1b'), std::string::npos);
  EXPECT_NE(out.find("x\\n2026"), std::string::npos);
}

TEST(Log, BracesInALineAreNotAFormat) {
  EXPECT_NE(written(Level::kInfo, false, Level::kInfo, "{} %s {0}").find("{} %s {0}"),
            std::string::npos);
}

TEST(Log, TheJournalGetsPriorities) {
  EXPECT_EQ(written(Level::kDebug, true, Level::kError, "x"), "<3>x\n");
  EXPECT_EQ(written(Level::kDebug, true, Level::kWarning, "x"), "<4>x\n");
  EXPECT_EQ(written(Level::kDebug, true, Level::kInfo, "x"), "<6>x\n");
  EXPECT_EQ(written(Level::kDebug, true, Level::kDebug, "x"), "<7>x\n");
}

}  // namespace
}  // namespace airllm::log

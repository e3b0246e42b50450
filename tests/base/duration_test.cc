#include "base/duration.h"

#include <gtest/gtest.h>

namespace airllm {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(ParseDuration, TakesUnitsSecondsAndForever) {
  EXPECT_EQ(parse_duration("30m").value(), minutes(30));
  EXPECT_EQ(parse_duration("5min").value(), minutes(5));
  EXPECT_EQ(parse_duration("1.5H").value(), minutes(90));
  EXPECT_EQ(parse_duration("2d").value(), hours(48));
  EXPECT_EQ(parse_duration("90").value(), seconds(90));
  EXPECT_EQ(parse_duration("90s").value(), seconds(90));
  EXPECT_EQ(parse_duration("250ms").value(), milliseconds(250));
  EXPECT_EQ(parse_duration("0").value(), milliseconds(0));
  EXPECT_EQ(parse_duration("Forever").value(), kForever);
  EXPECT_EQ(parse_duration("36500d").value(), kLongestDuration);
}

TEST(ParseDuration, RefusesWhatIsNone) {
  for (const char* text : {"", "m", "-1", "-0s", "5 m", "5x", "1e3s", "nan", "inf", "0x10",
                           "36501d", "99999999999999999999h", "5m 3s", "for ever"}) {
    const auto duration = parse_duration(text);
    ASSERT_FALSE(duration) << text;
    EXPECT_EQ(duration.error().code, ErrorCode::kUsage);
    EXPECT_NE(duration.error().message.find("'" + std::string(text) + "'"), std::string::npos);
    EXPECT_NE(duration.error().remedy.find("30m"), std::string::npos);
  }
}

TEST(FormatDuration, IsForPeople) {
  EXPECT_EQ(format_duration(kForever), "forever");
  EXPECT_EQ(format_duration(milliseconds(0)), "0 s");
  EXPECT_EQ(format_duration(milliseconds(250)), "250 ms");
  EXPECT_EQ(format_duration(seconds(119)), "119 s");
  EXPECT_EQ(format_duration(minutes(5)), "5 min");
  EXPECT_EQ(format_duration(hours(3)), "3 h");
  EXPECT_EQ(format_duration(kLongestDuration), "36500 d");
}

}  // namespace
}  // namespace airllm

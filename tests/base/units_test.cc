#include "base/units.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace airllm {
namespace {

TEST(ParseSize, KnowsBinarySuffixes) {
  struct Case {
    const char* text;
    uint64_t bytes;
  };
  constexpr std::array kCases{
      Case{"0", 0},
      Case{"1048576", kMiB},
      Case{"512K", 512 * kKiB},
      Case{"512k", 512 * kKiB},
      Case{"64M", 64 * kMiB},
      Case{"64MB", 64 * kMiB},
      Case{"64MiB", 64 * kMiB},
      Case{"64mib", 64 * kMiB},
      Case{"1.5G", kGiB + kGiB / 2},
      Case{"2T", 2048 * kGiB},
      Case{"7B", 7},
      Case{"0.5K", 512},
  };
  for (const Case& c : kCases) {
    const auto bytes = parse_size(c.text);
    ASSERT_TRUE(bytes.has_value()) << c.text;
    EXPECT_EQ(*bytes, c.bytes) << c.text;
  }
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "K", "-1", "-1K", "1X", "1KK", "1 K", " 1", "1K ", "1iB", "1Kib2",
                           "0x10", "1e3", "inf", "nan", "99999999T", "1,5G", "+1"}) {
    const auto bytes = parse_size(text);
    ASSERT_FALSE(bytes.has_value()) << text;
    EXPECT_EQ(bytes.error().code, ErrorCode::kUsage) << text;
    EXPECT_NE(bytes.error().message.find("'" + std::string(text) + "'"), std::string::npos) << text;
  }
}

TEST(ParseSize, LargeExactNumbersStayExact) {
  EXPECT_EQ(*parse_size("9007199254740992"), uint64_t{1} << 53);
  EXPECT_EQ(*parse_size("8191T"), uint64_t{8191} << 40);
}

TEST(FormatSize, WritesWhatAPersonReads) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(12), "12 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(640 * kKiB), "640 KiB");
  EXPECT_EQ(format_size(kGiB + kGiB / 2), "1.5 GiB");
  EXPECT_EQ(format_size(2000 * kGiB), "2.0 TiB");
}

TEST(FormatSize, WholeSizesComeBack) {
  for (uint64_t bytes : {uint64_t{1}, 3 * kKiB, 700 * kMiB, 5 * kGiB}) {
    std::string text = format_size(bytes);
    text.erase(text.find(' '), 1);
    EXPECT_EQ(*parse_size(text), bytes) << text;
  }
}

}  // namespace
}  // namespace airllm

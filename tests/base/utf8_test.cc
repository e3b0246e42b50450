#include "base/utf8.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>

namespace airllm {
namespace {

using namespace std::string_literals;

TEST(Utf8, WellFormedTextIsValid) {
  EXPECT_EQ(find_invalid_utf8(""), kValidUtf8);
  EXPECT_EQ(find_invalid_utf8("plain \0 text"s), kValidUtf8);
  EXPECT_EQ(find_invalid_utf8("\u00e9\u20ac\U0001F600\U0010FFFF\uFFFD"), kValidUtf8);
}

TEST(Utf8, IllFormedTextNamesTheFirstBadByte) {
  struct Case {
    std::string_view text;
    size_t offset;
  };
  constexpr std::array kCases{
      Case{"ab\xFF", 2},            // never a byte of UTF-8
      Case{"\x80", 0},              // continuation without a lead
      Case{"a\xC0\xAF", 1},         // overlong '/'
      Case{"\xC1\xBF", 0},          // overlong
      Case{"\xE0\x80\xAF", 0},      // overlong in three
      Case{"\xF0\x80\x80\xAF", 0},  // overlong in four
      Case{"x\xED\xA0\x80", 1},     // surrogate
      Case{"\xF4\x90\x80\x80", 0},  // above U+10FFFF
      Case{"\xF5\x80\x80\x80", 0},  // lead of nothing
      Case{"ok\xE2\x82", 2},        // cut short
      Case{"\xE2\x82(", 0},         // broken in the middle
      Case{"\xC3\xA9\xC3\xA9\xC3", 4},
  };
  for (const Case& c : kCases) EXPECT_EQ(find_invalid_utf8(c.text), c.offset) << c.offset;
}

TEST(Utf8, EveryCodePointRoundTrips) {
  for (char32_t c = 0; c <= 0x10FFFF; c += 7) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    ASSERT_EQ(find_invalid_utf8(text), kValidUtf8) << std::hex << static_cast<unsigned>(c);
  }
}

TEST(Utf8, ImpossibleCodePointsBecomeTheReplacement) {
  for (char32_t c : {char32_t{0xD800}, char32_t{0xDFFF}, char32_t{0x110000}}) {
    std::string text;
    append_utf8(text, c);
    EXPECT_EQ(text, "\uFFFD");
  }
}

// Cutting well-formed text at any byte: what is held back completes, what is not is valid.
TEST(Utf8, IncompleteSuffixIsExactlyWhatIsMissing) {
  const std::string text = "a\u00e9b\u20ac\U0001F600z\U0010FFFF";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const std::string_view head = std::string_view(text).substr(0, cut);
    const size_t held = incomplete_utf8_suffix(head);
    ASSERT_LE(held, 3U);
    EXPECT_EQ(find_invalid_utf8(head.substr(0, head.size() - held)), kValidUtf8) << cut;
  }
  EXPECT_EQ(incomplete_utf8_suffix(text), 0U);
}

TEST(Utf8, BytesThatCanNeverCompleteAreNotHeldBack) {
  EXPECT_EQ(incomplete_utf8_suffix("a\xFF"), 0U);
  EXPECT_EQ(incomplete_utf8_suffix("\x80\x80\x80"), 0U);
  EXPECT_EQ(incomplete_utf8_suffix("\xE0\x80"), 0U);
  EXPECT_EQ(incomplete_utf8_suffix("\xED\xA0"), 0U);
  EXPECT_EQ(incomplete_utf8_suffix("\xF4\x90"), 0U);
  EXPECT_EQ(incomplete_utf8_suffix("\xE2"), 1U);
  EXPECT_EQ(incomplete_utf8_suffix("\xF0\x9F\x98"), 3U);
}

TEST(EscapeForDisplay, ControlsAreShownNotObeyed) {
  EXPECT_EQ(escape_for_display("\x1b[31mred\x07\x7f"), "\\x1b[31mred\\x07\\x7f");
  EXPECT_EQ(escape_for_display("\0"s), "\\x00");
  EXPECT_EQ(escape_for_display("a\rb"), "a\\x0db");
  EXPECT_EQ(escape_for_display("\u009b2J"), "\\u{9b}2J");
  EXPECT_EQ(escape_for_display("\u202eevil\u2066\u2028"), "\\u{202e}evil\\u{2066}\\u{2028}");
}

TEST(EscapeForDisplay, NewlineAndTabOnRequest) {
  EXPECT_EQ(escape_for_display("a\n\tb"), "a\n\tb");
  EXPECT_EQ(escape_for_display("a\n\tb", true), "a\\n\\tb");
}

TEST(EscapeForDisplay, InvalidBytesAreShownInHex) {
  EXPECT_EQ(escape_for_display("a\xFF\xC3z"), "a\\xff\\xc3z");
}

TEST(EscapeForDisplay, OrdinaryTextIsUntouched) {
  const std::string text = "Gr\u00fc\u00dfe, \u4e16\u754c \U0001F600\u200d";
  EXPECT_EQ(escape_for_display(text), text);
}

}  // namespace
}  // namespace airllm

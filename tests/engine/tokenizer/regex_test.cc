#include "engine/tokenizer/regex.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace airllm::tokenizer {
namespace {

std::vector<std::string> matches(const std::string& expression, const std::string& text) {
  const auto pattern = Pattern::regex(expression, "p");
  EXPECT_TRUE(pattern.has_value()) << expression;
  EXPECT_TRUE(pattern->is_own()) << expression;
  const auto ranges = pattern->find_all(text);
  EXPECT_TRUE(ranges.has_value()) << expression;
  std::vector<std::string> found;
  for (const Range& range : *ranges)
    found.push_back(text.substr(range.begin, range.end - range.begin));
  return found;
}

using Strings = std::vector<std::string>;

constexpr const char* kGpt4 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

TEST(Regex, PublishedPatternCutsWords) {
  EXPECT_EQ(matches(kGpt4, "It's 12345  x\n\n !"),
            (Strings{"It", "'s", " ", "123", "45", " ", " x", "\n\n", " !"}));
}

TEST(Regex, ClassesAreUnicode16) {
  EXPECT_EQ(matches(R"(\p{L}+)", "\U00010D50\U00010D4A\uA7DA1"),
            (Strings{"\U00010D50\U00010D4A\uA7DA"}));
  EXPECT_EQ(matches(R"(\p{Nd})", "\U0001CCF0x"), (Strings{"\U0001CCF0"}));
}

TEST(Regex, CaseFoldingReachesBeyondAscii) {
  EXPECT_EQ(matches("(?i:'s)", "'s 'S '\u017F"), (Strings{"'s", "'S", "'\u017F"}));
  EXPECT_EQ(matches("(?i:k)", "K\u212A"), (Strings{"K", "\u212A"}));
}

TEST(Regex, AlternativesAndRepeatsAreLeftmostFirst) {
  EXPECT_EQ(matches("a|ab", "ab"), (Strings{"a"}));
  EXPECT_EQ(matches("a{1,2}?b", "aab"), (Strings{"aab"}));
  EXPECT_EQ(matches("a++a|b", "aab"), (Strings{"b"}));
  EXPECT_EQ(matches("(?<=a)b(?!c)", "abc ab"), (Strings{"b"}));
  EXPECT_EQ(matches("(?:ab|a)+c", "abac"), (Strings{"abac"}));
  EXPECT_EQ(matches("[a-z&&[^b]]+", "abc"), (Strings{"a", "c"}));
}

TEST(Regex, LongRunsNeedLinearlyManySteps) {
  for (const char* unit : {"a", " ", "\U0001F469\u200D", "\u4E00", "1\u0663", "\n ", "A"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_FALSE(matches(kGpt4, text).empty());
    EXPECT_FALSE(matches(kGpt4, text + "x").empty());
  }
}

TEST(Regex, TooManyStepsAreAnError) {
  const auto pattern = Pattern::regex("(?:a|a)*[xy]", "p");
  ASSERT_TRUE(pattern.has_value());
  const auto found = pattern->find_all(std::string(64, 'a'));
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::kData);
}

TEST(Regex, WhatTheEngineLacksStillWorks) {
  const auto pattern = Pattern::regex(R"((a)\1)", "p");
  ASSERT_TRUE(pattern.has_value());
  EXPECT_FALSE(pattern->is_own());
  EXPECT_EQ(pattern->find_all("aa")->size(), 1U);
}

}  // namespace
}  // namespace airllm::tokenizer

#include "fetch/names.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

TEST(FileNames, OrdinaryOnesPass) {
  for (const char* name : {"config.json", "a/b/c.txt", ".gitattributes", "model-00001-of-2.bin",
                           "größe/東京.txt", "a..b", "...", "-x", "a b"}) {
    EXPECT_TRUE(check_file_name(name).has_value()) << name;
  }
  EXPECT_TRUE(check_file_name(std::string(255, 'x')).has_value());
}

// CVE-2024-37032, CVE-2025-44779: names that lead elsewhere.
TEST(FileNames, TraversalIsRefused) {
  for (const char* name : {"../x", "a/../../x", "a/..", "..", ".", "./x", "a/./x", "/etc/passwd",
                           "//x", "a//b", "a/", "", "..\\x", "a\\b", "C:\\x"}) {
    const Status status = check_file_name(name);
    ASSERT_FALSE(status.has_value()) << name;
    EXPECT_EQ(status.error().code, ErrorCode::kData);
  }
}

TEST(FileNames, WhatATerminalWouldObeyIsRefused) {
  for (const std::string& name :
       {std::string("a\nb"), std::string("a\tb"), std::string("a\0b", 3), std::string("\x1b[2J"),
        std::string("a\x7f"), std::string("a\u0085"), std::string("a\u202eb"),
        std::string("a\u2066b"), std::string("\xff"), std::string("a\xc0\xaf")}) {
    EXPECT_FALSE(check_file_name(name).has_value());
  }
  // And shown without being obeyed.
  EXPECT_NE(check_file_name("\x1b[2J").error().message.find("\\x1b"), std::string::npos)
      << check_file_name("\x1b[2J").error().message;
}

TEST(FileNames, LongOnesAreRefused) {
  EXPECT_FALSE(check_file_name(std::string(256, 'x')).has_value());
  std::string deep;
  for (int i = 0; i < 11; ++i) deep += std::string(99, 'd') + "/";
  EXPECT_FALSE(check_file_name(deep + "x").has_value());
}

TEST(RepositoryNames, AsTheHubHasThem) {
  for (const char* name : {"gpt2", "acme/tiny", "a/b", "A_b/c-d.e", "0/1", "_a/b_"}) {
    EXPECT_TRUE(check_repository(name).has_value()) << name;
  }
  for (const char* name : {"", "/", "a/", "/a", "a/b/c", "a--b", "a..b", "a/../b", "a/.b",
                           "a/b.git", "-a", "a-", "a b", "ü/x", "a\\b", "a?b", "a/b#", "a%2fb"}) {
    EXPECT_FALSE(check_repository(name).has_value()) << name;
  }
  EXPECT_TRUE(check_repository(std::string(96, 'x')).has_value());
  EXPECT_FALSE(check_repository(std::string(97, 'x')).has_value());
}

TEST(Revisions, HaveNoControlCharacters) {
  EXPECT_TRUE(check_revision("main").has_value());
  EXPECT_TRUE(check_revision("refs/pr/1").has_value());
  EXPECT_FALSE(check_revision("").has_value());
  EXPECT_FALSE(check_revision("a\nb").has_value());
  EXPECT_FALSE(check_revision(std::string(251, 'x')).has_value());
}

TEST(Hexadecimal, LowerCaseAndOfRightLength) {
  EXPECT_TRUE(is_hex("0123456789abcdef", 16));
  EXPECT_FALSE(is_hex("0123456789ABCDEF", 16));
  EXPECT_FALSE(is_hex("0123456789abcde", 16));
  EXPECT_FALSE(is_hex("0123456789abcdeg", 16));
}

}  // namespace
}  // namespace airllm::fetch

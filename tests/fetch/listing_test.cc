#include "fetch/listing.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

const std::string kCommit(40, 'c');
const std::string kSha1(40, 'b');
const std::string kSha256(64, 'a');

std::string file(const std::string& name, const std::string& size = "7",
                 const std::string& more = "") {
  return R"({"rfilename": ")" + name + R"(", "size": )" + size + R"(, "blobId": ")" + kSha1 + "\"" +
         more + "}";
}

std::string listing(const std::string& files) {
  return R"({"id": "a/b", "sha": ")" + kCommit + R"(", "gated": false, "siblings": [)" + files +
         "]}";
}

Error refused(const std::string& text) {
  auto parsed = parse_listing(text, "u");
  if (parsed) return {ErrorCode::kInternal, "it was taken", ""};
  return parsed.error();
}

TEST(Listing, HasNamesSizesAndHashes) {
  const auto parsed =
      parse_listing(listing(file("config.json") + "," +
                            file("m.safetensors", "123456789012",
                                 R"(, "lfs": {"sha256": ")" + kSha256 +
                                     R"(", "size": 123456789012, "pointerSize": 134})") +
                            "," + file("a/b.txt", "0", R"(, "lfs": null)")),
                    "u");
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->commit, kCommit);
  EXPECT_EQ(parsed->size_bytes, 123456789019U);
  ASSERT_EQ(parsed->files.size(), 3U);
  EXPECT_EQ(parsed->files[0].name, "config.json");
  EXPECT_EQ(parsed->files[0].git_sha1, kSha1);
  EXPECT_EQ(parsed->files[0].sha256, "");
  EXPECT_EQ(parsed->files[1].sha256, kSha256);
  EXPECT_EQ(parsed->files[1].size, 123456789012U);
}

TEST(Listing, HostileNamesAreNamed) {
  for (const char* name :
       {"../x", "/x", "a//b", "a\\\\b", "a\\u0000b", "a\\nb", "", "a/..", "a\\u202eb"}) {
    const Error error = refused(listing(file("ok") + "," + file(name)));
    EXPECT_EQ(error.code, ErrorCode::kData) << name;
    EXPECT_NE(error.message.find("the name of a file"), std::string::npos) << error.message;
    EXPECT_NE(error.remedy, "") << name;
  }
  EXPECT_NE(refused(listing(file("../x"))).message.find("'../x'"), std::string::npos);
}

TEST(Listing, NamesThatCollideAreRefused) {
  EXPECT_NE(refused(listing(file("a") + "," + file("a"))).message.find("twice"), std::string::npos);
  const Error error = refused(listing(file("a/b/c") + "," + file("a/b")));
  EXPECT_NE(error.message.find("'a/b' is a file, and the folder of 'a/b/c'"), std::string::npos)
      << error.message;
}

TEST(Listing, WhatIsNoneIsRefused) {
  const std::vector<std::string> texts = {
      std::string(),
      std::string("null"),
      std::string("[]"),
      std::string("{}"),
      std::string("<html></html>"),
      std::string(R"({"sha": 7, "siblings": []})"),
      R"({"sha": ")" + kCommit + R"("})",
      R"({"sha": ")" + kCommit + R"(", "siblings": {}})",
      R"({"sha": "main", "siblings": []})",
      listing("7"),
      listing("{}"),
      listing(file("a", "-1")),
      listing(file("a", "1.5")),
      listing(file("a", "\"7\"")),
      listing(file("a", "NaN")),
      listing(file("a", "1e400")),
      listing(file("a", "18446744073709551616")),
      listing(file("a", "18446744073709551615")),
      listing(file("a")).substr(0, 60),
      listing(file("a", "7", R"(, "lfs": 7)")),
      listing(file("a", "7", R"(, "lfs": {})")),
      listing(file("a", "7", R"(, "lfs": {"sha256": ")" + kSha256 + R"(", "size": 8})")),
      listing(R"({"rfilename": "a", "size": 7})"),
      listing(R"({"rfilename": "a", "size": 7, "blobId": "x"})"),
      std::string(100000, '[')};
  for (const std::string& text : texts) {
    EXPECT_EQ(refused(text).code, ErrorCode::kData) << text.substr(0, 100);
  }
}

TEST(Listing, TooManyFilesAreRefused) {
  std::string files;
  for (size_t i = 0; i <= kMaxFiles; ++i) files += (i == 0 ? "" : ",") + file(std::to_string(i));
  EXPECT_NE(refused(listing(files)).message.find("100001 files"), std::string::npos);
}

}  // namespace
}  // namespace airllm::fetch

#include "fetch/response_head.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

using std::chrono::seconds;

ResponseHead head(int status, const std::vector<std::string>& lines) {
  ResponseHead out;
  for (const std::string& line : lines) out.add_line(line + "\r\n");
  out.status = status;
  return out;
}

TEST(ResponseHead, NamesAreOfAnyCaseAndBlanksDoNotCount) {
  const ResponseHead response = head(200, {"X-Repo-Commit:  abc ", "ETag:\"x\"", "no field"});
  EXPECT_EQ(response.find("x-repo-commit"), "abc");
  EXPECT_EQ(response.find("etag"), "\"x\"");
  EXPECT_FALSE(response.find("no field").has_value());
  EXPECT_EQ(response.fields.size(), 2U);
}

TEST(ResponseHead, OnlyRedirectsHaveALocation) {
  for (const int status : {301, 302, 303, 307, 308}) {
    EXPECT_EQ(head(status, {"Location: /x"}).location(), "/x");
  }
  for (const int status : {200, 201, 300, 304, 404}) {
    EXPECT_FALSE(head(status, {"Location: /x"}).location().has_value());
  }
  EXPECT_FALSE(head(302, {}).location().has_value());
}

TEST(Etag, IsWhatIsInTheQuotes) {
  EXPECT_EQ(etag_content("\"abc\""), "abc");
  EXPECT_EQ(etag_content("W/\"abc\""), "abc");
  EXPECT_EQ(etag_content("abc"), "abc");
  EXPECT_EQ(etag_content("\""), "\"");
  EXPECT_EQ(etag_content(""), "");
}

TEST(ContentRange, IsReadStrictly) {
  const auto range = parse_content_range("bytes 10-19/100");
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->begin, 10U);
  EXPECT_EQ(range->end, 20U);
  EXPECT_EQ(range->total, 100U);
  EXPECT_FALSE(parse_content_range("bytes 0-0/*")->total.has_value());
  for (const char* value :
       {"", "bytes", "bytes 0-9", "bytes */100", "bytes 9-0/100", "bytes -1-9/100", "0-9/100",
        "bytes 0-9/x", "bytes 0-9/9", "bytes 0-100/100", "bytes +1-9/100", "bytes 0 -9/100",
        "bytes 0-18446744073709551615/*", "bytes 0-99999999999999999999/*",
        "bytes 0-9/10, 0-1/2"}) {
    EXPECT_FALSE(parse_content_range(value).has_value()) << value;
  }
}

TEST(AskedWait, SecondsDatesAndRateLimits) {
  constexpr std::time_t kNow = 1'700'000'000;  // Tue, 14 Nov 2023 22:13:20 GMT
  EXPECT_EQ(asked_wait(head(429, {"Retry-After: 7"}), kNow), seconds(7));
  EXPECT_EQ(asked_wait(head(429, {"Retry-After: Tue, 14 Nov 2023 22:13:50 GMT"}), kNow),
            seconds(30));
  EXPECT_EQ(asked_wait(head(429, {"Retry-After: Tue, 14 Nov 2023 22:00:00 GMT"}), kNow),
            seconds(0));
  EXPECT_EQ(asked_wait(head(429, {"RateLimit: \"resolvers\";r=0;t=55", "Retry-After: 7"}), kNow),
            seconds(55));
  EXPECT_EQ(asked_wait(head(429, {"RateLimit: \"api\";r=3;t=55", "Retry-After: 7"}), kNow),
            seconds(7));
  for (const char* field : {"Retry-After: soon", "Retry-After: -3", "Retry-After:", "X: 1"}) {
    EXPECT_FALSE(asked_wait(head(429, {field}), kNow).has_value()) << field;
  }
  EXPECT_LE(asked_wait(head(429, {"Retry-After: 18446744073709551615"}), kNow),
            seconds(366 * 86400));
}

TEST(Encoding, OnlyTheBytesThemselvesAreTaken) {
  EXPECT_TRUE(check_encoding(head(200, {})).has_value());
  EXPECT_TRUE(check_encoding(head(200, {"Content-Encoding: identity"})).has_value());
  EXPECT_TRUE(check_encoding(head(200, {"Transfer-Encoding: Chunked"})).has_value());
  for (const char* field : {"Content-Encoding: gzip", "Content-Encoding: br, identity",
                            "Transfer-Encoding: gzip", "Transfer-Encoding: gzip, chunked"}) {
    EXPECT_FALSE(check_encoding(head(200, {field})).has_value()) << field;
  }
}

TEST(BodyPlace, ARangeIsWhatWasAskedFor) {
  const auto place =
      body_place(head(206, {"Content-Range: bytes 10-19/100", "Content-Length: 10"}), 10, 20, 100);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->begin, 10U);
  EXPECT_EQ(place->end, 20U);
  EXPECT_FALSE(place->is_whole);
}

TEST(BodyPlace, AShorterRangeIsTaken) {
  EXPECT_EQ(body_place(head(206, {"Content-Range: bytes 10-14/*"}), 10, 20, 100)->end, 15U);
}

TEST(BodyPlace, AllOfTheFileIsSaidSo) {
  const auto place = body_place(head(200, {"Content-Length: 100"}), 10, 20, 100);
  ASSERT_TRUE(place.has_value());
  EXPECT_TRUE(place->is_whole);
  EXPECT_EQ(place->begin, 0U);
  EXPECT_EQ(place->end, 100U);
  EXPECT_TRUE(body_place(head(200, {}), 10, 20, 100)->is_whole);
}

// CVE-2024-39720, CVE-2026-7482: offsets beyond what is there.
TEST(BodyPlace, OtherPlacesAndLengthsAreRefused) {
  const std::vector<std::pair<int, std::vector<std::string>>> answers = {
      {206, {}},
      {206, {"Content-Range: bytes 11-20/100"}},
      {206, {"Content-Range: bytes 0-9/100"}},
      {206, {"Content-Range: bytes 10-20/100"}},
      {206, {"Content-Range: bytes 10-19/101"}},
      {206, {"Content-Range: bytes 10-19/100", "Content-Length: 11"}},
      {206, {"Content-Range: bytes 10-19/100", "Content-Length: -1"}},
      {206, {"Content-Range: bytes 10-19/100", "Content-Encoding: gzip"}},
      {206, {"Content-Type: multipart/byteranges; boundary=x"}},
      {200, {"Content-Length: 99"}},
      {200, {"Content-Length: 100", "Content-Encoding: deflate"}},
      {204, {}},
  };
  for (const auto& [status, lines] : answers) {
    const auto place = body_place(head(status, lines), 10, 20, 100);
    ASSERT_FALSE(place.has_value()) << status << (lines.empty() ? "" : lines[0]);
    EXPECT_EQ(place.error().code, ErrorCode::kData);
  }
}

}  // namespace
}  // namespace airllm::fetch

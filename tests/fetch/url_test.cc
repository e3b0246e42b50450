#include "fetch/url.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

Url url(std::string_view text) { return Url::parse(text, "test").value(); }

TEST(Url, OriginIsSchemeHostAndPort) {
  EXPECT_EQ(url("https://Hub.Example/a").origin(), (Origin{"https", "hub.example", 443}));
  EXPECT_EQ(url("HTTP://hub.example:8080").origin(), (Origin{"http", "hub.example", 8080}));
  EXPECT_EQ(url("https://[2001:DB8::1]:1/").origin(), (Origin{"https", "[2001:db8::1]", 1}));
  EXPECT_EQ(url("https://hub.example:443/").origin(), url("https://hub.example/b").origin());
  EXPECT_NE(url("https://hub.example/").origin(), url("http://hub.example/").origin());
  EXPECT_NE(url("https://hub.example/").origin(), url("https://hub.example:444/").origin());
  EXPECT_NE(url("https://hub.example/").origin(), url("https://hub.example.org/").origin());
}

TEST(Url, OthersAreRefused) {
  for (const char* text :
       {"", "hub.example/x y", "ftp://hub.example/", "file:///etc/passwd", "https://",
        "https://user@hub.example/", "https://user:word@hub.example/", "https://hub.example:99999/",
        "https://hub.example:x/", "https://hub\n.example/", "https://hub.example/a b",
        "gopher://hub.example/"}) {
    const auto parsed = Url::parse(text, "test");
    EXPECT_FALSE(parsed.has_value()) << text;
    if (!parsed) {
      EXPECT_EQ(parsed.error().code, ErrorCode::kUsage);
    }
  }
  EXPECT_FALSE(Url::parse(std::string("https://a\0b/", 12), "test").has_value());
  EXPECT_FALSE(Url::parse("https://a/" + std::string(20000, 'x'), "test").has_value());
}

TEST(Url, WhatIsShownHasNoQuery) {
  EXPECT_EQ(url("https://cdn.example/x?Signature=secret").shown(), "https://cdn.example/x");
  const auto refused = Url::parse("ftp://cdn.example/x?Signature=secret", "test");
  EXPECT_EQ(refused.error().message.find("secret"), std::string::npos);
}

TEST(Url, LoopbackIsThisMachine) {
  for (const char* text : {"http://localhost/", "http://127.0.0.1/", "http://127.8.9.1:80/",
                           "http://[::1]:8080/", "http://LOCALHOST/"}) {
    EXPECT_TRUE(url(text).origin().is_loopback()) << text;
  }
  for (const char* text :
       {"http://127.example.org/", "http://localhost.example.org/", "http://10.0.0.1/",
        "http://127.0.0.1.example.org/", "http://[::2]/", "http://1.127.0.0/"}) {
    EXPECT_FALSE(url(text).origin().is_loopback()) << text;
  }
}

TEST(Redirect, RelativeOnesStayAtTheHost) {
  const Url from = url("https://hub.example/a/resolve/main/x?y=1");
  EXPECT_EQ(from.redirected("/b/resolve/main/x")->text(), "https://hub.example/b/resolve/main/x");
  EXPECT_EQ(from.redirected("z?q=2")->text(), "https://hub.example/a/resolve/main/z?q=2");
  EXPECT_EQ(from.redirected("//cdn.example/x")->text(), "https://cdn.example/x");
  EXPECT_EQ(from.redirected("https://cdn.example/x?S=1")->origin().host, "cdn.example");
}

TEST(Redirect, EncryptionIsNotGivenUp) {
  const Url from = url("https://hub.example/a");
  const auto refused = from.redirected("http://hub.example/a?Signature=secret");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kData);
  EXPECT_NE(refused.error().message.find("without encryption"), std::string::npos);
  EXPECT_EQ(refused.error().message.find("secret"), std::string::npos);
  EXPECT_TRUE(url("http://hub.example/a").redirected("https://hub.example/a").has_value());
}

TEST(Redirect, OtherSchemesAndNonsenseAreRefused) {
  const Url from = url("https://hub.example/a");
  for (const char* location : {"", "file:///etc/passwd", "ftp://hub.example/", "https://",
                               "https://user:word@hub.example/", "javascript:alert(1)"}) {
    EXPECT_FALSE(from.redirected(location).has_value()) << location;
  }
}

TEST(Endpoint, PathsStayAndSlashesAtTheEndGo) {
  EXPECT_EQ(file_url(parse_endpoint("https://m.example/hub//").value(), "a/b", "main", "x")->text(),
            "https://m.example/hub/a/b/resolve/main/x");
  EXPECT_FALSE(parse_endpoint("https://m.example/?x=1").has_value());
  EXPECT_FALSE(parse_endpoint("https://m.example/#x").has_value());
  EXPECT_FALSE(parse_endpoint("m.example:x").has_value());
}

TEST(Endpoint, NamesAreEncoded) {
  const Url endpoint = parse_endpoint("https://h.example").value();
  EXPECT_EQ(info_url(endpoint, "acme/tiny", "refs/pr/1")->text(),
            "https://h.example/api/models/acme/tiny/revision/refs%2Fpr%2F1?blobs=true");
  EXPECT_EQ(file_url(endpoint, "tiny", "main", "a b/ü?#%+&.txt")->text(),
            "https://h.example/tiny/resolve/main/a%20b/%C3%BC%3F%23%25%2B%26.txt");
}

TEST(PercentEncoding, OnlyTheUnreservedStay) {
  EXPECT_EQ(percent_encoded("aZ09-._~", false), "aZ09-._~");
  EXPECT_EQ(percent_encoded("a/b", true), "a/b");
  EXPECT_EQ(percent_encoded("a/b", false), "a%2Fb");
  EXPECT_EQ(percent_encoded(std::string("\0\xff", 2), false), "%00%FF");
}

}  // namespace
}  // namespace airllm::fetch

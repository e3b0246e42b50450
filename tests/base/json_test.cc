#include "base/json.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>

namespace airllm {
namespace {

using namespace std::string_literals;

TEST(Json, ParsesEveryKindOfValue) {
  auto value = parse_json(R"({"b":[1,-2,2.5,"x\u00e9",true,null],"a":{}})", "text");
  ASSERT_TRUE(value.has_value()) << value.error().message;
  EXPECT_EQ((*value)["b"][0].get<int>(), 1);
  EXPECT_EQ((*value)["b"][1].get<int>(), -2);
  EXPECT_EQ((*value)["b"][2].get<double>(), 2.5);
  EXPECT_EQ((*value)["b"][3].get<std::string>(), "x\xC3\xA9");
  EXPECT_TRUE((*value)["b"][5].is_null());
}

TEST(Json, KeepsTheOrderOfKeys) {
  auto value = parse_json(R"({"z":1,"a":2,"m":3})", "text");
  ASSERT_TRUE(value.has_value());
  EXPECT_EQ(dump_json(*value), R"({"z":1,"a":2,"m":3})");
}

// Each text is malformed in one way, and the message must name the source and not be JSON.
TEST(Json, MalformedTextIsADataError) {
  const std::array<std::string, 18> texts{
      "",          " ",         "{",           "}",      "[1,]", "{\"a\":1,}",
      "{'a':1}",   "{\"a\" 1}", "nul",         "01",     "1 2",  "{} x",
      "\"\\ud8\"", "\"\x01\"",  "\"\\ud800\"", "[1]\0"s, "NaN",  "// c\n1",
  };
  for (const std::string& text : texts) {
    auto value = parse_json(text, "/some/file");
    ASSERT_FALSE(value.has_value()) << text;
    EXPECT_EQ(value.error().code, ErrorCode::kData) << text;
    EXPECT_EQ(value.error().message.find("/some/file: "), 0U) << value.error().message;
  }
}

TEST(Json, InvalidUtf8NamesTheByte) {
  auto value = parse_json("{\"a\":\"\xC3(\"}", "file");
  ASSERT_FALSE(value.has_value());
  EXPECT_EQ(value.error().message, "file: not UTF-8 at byte 6");
}

TEST(Json, DuplicateKeysAreRefusedAtAnyLevel) {
  for (const char* text :
       {R"({"a":1,"a":2})", R"([{"x":{"b":1,"c":2,"b":3}}])", R"({"a":1,"\u0061":2})"}) {
    auto value = parse_json(text, "file");
    ASSERT_FALSE(value.has_value()) << text;
    EXPECT_NE(value.error().message.find("duplicate key"), std::string::npos);
  }
}

TEST(Json, SameKeyInDifferentObjectsIsFine) {
  EXPECT_TRUE(parse_json(R"([{"a":1},{"a":2},{"b":{"a":3},"a":4}])", "file").has_value());
}

TEST(Json, NestingIsLimitedAndTheLimitIsReachable) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(parse_json(nested(kJsonMaxDepth), "file").has_value());
  EXPECT_FALSE(parse_json(nested(kJsonMaxDepth + 1), "file").has_value());
  auto bomb = parse_json(nested(10'000'000), "file");
  ASSERT_FALSE(bomb.has_value());
  EXPECT_NE(bomb.error().message.find("nested deeper"), std::string::npos);
}

TEST(Json, MessagesAreEscaped) {
  auto value = parse_json("{\"\\u001b[31m\":1,\"\\u001b[31m\":2}", "file");
  ASSERT_FALSE(value.has_value());
  EXPECT_EQ(value.error().message.find('\x1b'), std::string::npos);
}

TEST(Json, DumpReplacesInvalidUtf8) { EXPECT_EQ(dump_json(Json("a\xFFz")), "\"a\xEF\xBF\xBDz\""); }

TEST(Json, DumpIsOneLine) {
  EXPECT_EQ(dump_json(Json{{"a", "x\ny"}}).find('\n'), std::string::npos);
}

// An index of a large mixture-of-experts checkpoint has as many; time must not grow with the
// square.
TEST(Json, ManyKeysOfOneObject) {
  constexpr size_t kKeys = 200000;
  std::string text = "{";
  for (size_t i = 0; i < kKeys; ++i) {
    text += (i == 0 ? "\"model.layers.0.mlp.experts." : ",\"model.layers.0.mlp.experts.") +
            std::to_string(i) + ".weight\":\"model-00001-of-00163.safetensors\"";
  }
  text += "}";
  auto value = parse_json(text, "index");
  ASSERT_TRUE(value.has_value()) << value.error().message;
  EXPECT_EQ(value->size(), kKeys);
  EXPECT_EQ(value->back().get<std::string>(), "model-00001-of-00163.safetensors");
}

}  // namespace
}  // namespace airllm

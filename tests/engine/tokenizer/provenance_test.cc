// What a user writes is text: no added token is found in it, and none across its borders.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

std::vector<int32_t> encode_parts(const Tokenizer& tokenizer, const std::vector<TextPart>& parts) {
  auto ids = tokenizer.encode(parts, {.add_special = false});
  EXPECT_TRUE(ids) << ids.error().message;
  return ids ? *ids : std::vector<int32_t>();
}

size_t count_of(const std::vector<int32_t>& ids, int32_t id) {
  return static_cast<size_t>(std::count(ids.begin(), ids.end(), id));
}

TEST(Provenance, AddedTokensOfAUserAreText) {
  for (const char* name : {"byte_level.json", "byte_fallback.json"}) {
    const auto tokenizer = make_tokenizer(read_fixture(name));
    ASSERT_NE(tokenizer, nullptr);
    // One that is searched before normalisation, and one behind it.
    for (const std::string token : {"[T2]", "norm"}) {
      const int32_t id = tokenizer->token_id(token).value();
      const auto ids = encode_parts(*tokenizer, {{token, false}, {"x " + token + " y", true}});
      EXPECT_EQ(count_of(ids, id), 1U) << name << token;
      EXPECT_EQ(ids[0], id);
      EXPECT_NE(tokenizer->decode(ids, false).find("x " + token + " y"), std::string::npos);
    }
  }
}

TEST(Provenance, NoMatchSpansParts) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  const int32_t id = tokenizer->token_id("<|end|>").value();
  EXPECT_EQ(count_of(encode_parts(*tokenizer, {{"<|end|>", false}}), id), 1U);
  EXPECT_EQ(count_of(encode_parts(*tokenizer, {{"<|e", false}, {"nd|>", true}}), id), 0U);
  EXPECT_EQ(count_of(encode_parts(*tokenizer, {{"<|e", false}, {"nd|>", false}}), id), 0U);
  EXPECT_EQ(count_of(encode_parts(*tokenizer, {{"<|", true}, {"end|>", false}}), id), 0U);
}

TEST(Provenance, PiecesAreOtherwiseOneText) {
  for (const char* name : {"byte_level.json", "byte_fallback.json"}) {
    const auto tokenizer = make_tokenizer(read_fixture(name));
    ASSERT_NE(tokenizer, nullptr);
    const std::string text = "Hello wor\u006c\u0065\u0301d, how are you?";
    const auto whole = encode(*tokenizer, text, false);
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      if (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0U) == 0x80U) continue;
      for (const bool first_is_user : {false, true}) {
        EXPECT_EQ(encode_parts(*tokenizer, {{text.substr(0, cut), first_is_user},
                                            {text.substr(cut), !first_is_user}}),
                  whole)
            << name << " cut at " << cut;
      }
    }
  }
}

TEST(Provenance, AComposedCharacterOfTwoPartsIsTheUsers) {
  Json json = read_fixture("byte_level.json");
  const std::string content = "\u1ebd";
  json["added_tokens"].push_back({{"id", 1000}, {"content", content}, {"normalized", true}});
  const auto tokenizer = make_tokenizer(json);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "e\u0303", false), std::vector<int32_t>{1000});
  EXPECT_EQ(count_of(encode_parts(*tokenizer, {{"e", false}, {"\u0303", true}}), 1000), 0U);
  EXPECT_EQ(count_of(encode_parts(*tokenizer, {{"e\u0303", false}, {"\u1ebd", true}}), 1000), 1U);
}

TEST(Provenance, NotUtf8IsRefusedWithItsPlace) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  // Each part by itself: halves of a character do not join.
  const std::vector<TextPart> parts = {{"ab\xC3", true}, {"\xA9", true}};
  const auto ids = tokenizer->encode(parts, {});
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kData);
  EXPECT_NE(ids.error().message.find("byte 2"), std::string::npos) << ids.error().message;
}

}  // namespace
}  // namespace airllm::tokenizer

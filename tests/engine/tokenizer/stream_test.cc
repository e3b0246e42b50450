#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

// Random ids, mostly bytes, so that characters come apart in every way.
void expect_streams_equal_decode(const Tokenizer& tokenizer, bool skip_special) {
  std::mt19937 random(std::random_device{}());
  const auto size = static_cast<uint32_t>(tokenizer.vocabulary_size());
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids(random() % 24);
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % (random() % 3 == 0 ? size + 5 : 262));
    }
    const auto stream = tokenizer.stream(skip_special);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = stream->push(id);
      ASSERT_EQ(find_invalid_utf8(piece), kValidUtf8) << testing::PrintToString(ids);
      text += piece;
    }
    text += stream->finish();
    ASSERT_EQ(find_invalid_utf8(text), kValidUtf8) << testing::PrintToString(ids);
    ASSERT_EQ(text, tokenizer.decode(ids, skip_special)) << testing::PrintToString(ids);
  }
}

TEST(Stream, EqualsDecode) {
  for (const char* name : {"byte_level.json", "byte_fallback.json"}) {
    const auto tokenizer = make_tokenizer(read_fixture(name));
    ASSERT_NE(tokenizer, nullptr);
    expect_streams_equal_decode(*tokenizer, false);
    expect_streams_equal_decode(*tokenizer, true);
  }
}

TEST(Stream, TextComesAsSoonAsItIsCertain) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = "\u4e2da";
  const auto ids = encode(*tokenizer, text, false);
  const auto stream = tokenizer->stream(true);
  std::string so_far;
  for (const int32_t id : ids) so_far += stream->push(id);
  EXPECT_EQ(so_far, text);
  EXPECT_EQ(stream->finish(), "");
}

TEST(Stream, HalfACharacterIsHeldAndReplacedAtTheEnd) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  const auto first = tokenizer->token_id("\u00f0");   // byte F0
  const auto second = tokenizer->token_id("\u0141");  // byte 9F
  ASSERT_TRUE(first && second);
  const auto stream = tokenizer->stream(true);
  EXPECT_EQ(stream->push(*first), "");
  EXPECT_EQ(stream->push(*second), "");
  EXPECT_EQ(stream->finish(), "\ufffd");
}

TEST(Stream, ByteTokensAreHeldUntilTheirRunEnds) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_fallback.json"));
  ASSERT_NE(tokenizer, nullptr);
  const auto byte = [&](const char* token) { return tokenizer->token_id(token).value(); };
  const auto letter = tokenizer->token_id("a").value();
  const auto stream = tokenizer->stream(true);
  EXPECT_EQ(stream->push(byte("<0xC3>")), "");
  EXPECT_EQ(stream->push(byte("<0xA9>")), "");
  EXPECT_EQ(stream->push(letter), "\u00e9a");
  EXPECT_EQ(stream->push(byte("<0xC3>")), "");
  EXPECT_EQ(stream->push(byte("<0xC3>")), "");
  EXPECT_EQ(stream->finish(), "\ufffd\ufffd");
}

TEST(Stream, IdsOutOfRangeAreLeftOut) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<int32_t> ids = {-1, 1 << 30, INT32_MIN,
                                    static_cast<int32_t>(tokenizer->vocabulary_size())};
  EXPECT_EQ(tokenizer->decode(ids, false), "");
}

}  // namespace
}  // namespace airllm::tokenizer

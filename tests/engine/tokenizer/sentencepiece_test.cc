// Against the sentencepiece library: tools/tokenizer_fixtures/sentencepiece_models.py recorded what
// it answers.
#include <gtest/gtest.h>

#include "engine/tokenizer/load_tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/engine/tokenizer/sentencepiece_fixtures.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kCheckSize = 2;  // characters

std::vector<int32_t> encode_part(const Tokenizer& tokenizer, const std::string& text,
                                 bool from_user) {
  const TextPart part{text, from_user};
  auto ids = tokenizer.encode({&part, 1}, {.add_special = false});
  EXPECT_TRUE(ids) << ids.error().message;
  return ids ? *ids : std::vector<int32_t>();
}

// Ids, pieces, decoded text; the stream agrees.
std::string check_of(const Tokenizer& tokenizer, const std::string& text, bool from_user) {
  Check check;
  const std::vector<int32_t> ids = encode_part(tokenizer, text, from_user);
  check.add(ids);
  std::string pieces;
  for (const int32_t id : ids) pieces += tokenizer.token_text(id).value_or("(no token)");
  check.add(pieces);
  const std::string decoded = tokenizer.decode(ids, true);
  EXPECT_EQ(stream_text(tokenizer, ids, true), decoded);
  check.add(decoded);
  return check.text().substr(0, kCheckSize);
}

bool holds_added_token(const std::string& text) {
  for (const char* token : {"<unk>", "<s>", "</s>", "<pad>", "<sep>"}) {
    if (text.find(token) != std::string::npos) return true;
  }
  return false;
}

void expect_checks(const Tokenizer& tokenizer, const std::string& checks, bool from_user,
                   const std::string& name) {
  const std::vector<std::string> texts = corpus();
  ASSERT_GE(texts.size(), 2000U);
  ASSERT_EQ(checks.size(), kCheckSize * texts.size());
  int differences = 0;
  size_t compared = 0;
  for (size_t i = 0; i < texts.size() && differences < 5; ++i) {
    // Added tokens are none to the library, and are none in a user's text.
    if (!from_user && holds_added_token(texts[i])) continue;
    ++compared;
    if (check_of(tokenizer, texts[i], from_user) == checks.substr(kCheckSize * i, kCheckSize)) {
      continue;
    }
    ++differences;
    ADD_FAILURE() << name << (from_user ? " (user's)" : "") << " differs on text " << i << ": "
                  << Json(texts[i]).dump(-1, ' ', true);
  }
  EXPECT_TRUE(differences > 0 || compared + 20 > texts.size());
}

TEST(SentencePiece, AgreesWithTheLibrary) {
  const Json expected = read_fixture("sentencepiece/expected.json");
  ASSERT_GT(expected.size(), 30U);
  for (const auto& [name, variant] : expected.items()) {
    const auto loaded = load_tokenizer({.tokenizer_model = sentencepiece_variant(variant)}, name);
    ASSERT_TRUE(loaded) << loaded.error().message;
    const auto user = variant["user"].get<std::string>();
    expect_checks(**loaded, user, true, name);
    expect_checks(**loaded, variant.value("template", user), false, name);
  }
}

}  // namespace
}  // namespace airllm::tokenizer

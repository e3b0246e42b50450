// What stands beside a tokenizer.model, and whose text may become which piece.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/tokenizer/load_tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/engine/tokenizer/sentencepiece_fixtures.h"

namespace airllm::tokenizer {
namespace {

using Strings = std::vector<std::string>;

std::unique_ptr<Tokenizer> load(const std::string& model, TextFiles files = {}) {
  files.tokenizer_model = sentencepiece_fixture(model);
  auto loaded = load_tokenizer(files, "m");
  EXPECT_TRUE(loaded) << loaded.error().message;
  return loaded ? std::move(*loaded) : nullptr;
}

std::unique_ptr<Tokenizer> load_with_config(const std::string& model, const std::string& config) {
  return load(model, {.tokenizer_config_json = config});
}

Strings pieces(const Tokenizer& tokenizer, const std::vector<TextPart>& parts,
               bool add_special = false) {
  const auto ids = tokenizer.encode(parts, {.add_special = add_special});
  EXPECT_TRUE(ids) << ids.error().message;
  Strings out;
  if (!ids) return out;
  for (const int32_t id : *ids) {
    out.push_back(tokenizer.token_text(id).value_or("(no token)"));
  }
  return out;
}

Strings pieces(const Tokenizer& tokenizer, const std::string& text, bool add_special = false) {
  return pieces(tokenizer, {{text, false}}, add_special);
}

std::string refusal(const TextFiles& files) {
  const auto loaded = load_tokenizer(files, "m");
  EXPECT_FALSE(loaded);
  if (loaded) return "";
  EXPECT_EQ(loaded.error().code, ErrorCode::kData);
  return loaded.error().message;
}

TEST(SentencePieceSettings, BosIsAddedUnlessTheConfigurationSaysOtherwise) {
  const auto ask = [](const char* config) {
    return pieces(*load_with_config("bpe_bytes.model", config), "hello", true);
  };
  EXPECT_EQ(pieces(*load("bpe_bytes.model"), "hello", true), Strings({"<s>", "▁hello"}));
  EXPECT_EQ(pieces(*load("bpe_bytes.model"), "hello"), Strings({"▁hello"}));
  EXPECT_EQ(ask(R"({"add_bos_token":false})"), Strings({"▁hello"}));
  EXPECT_EQ(ask(R"({"add_eos_token":true})"), Strings({"<s>", "▁hello", "</s>"}));
  EXPECT_EQ(ask(R"({"bos_token":"</s>"})"), Strings({"</s>", "▁hello"}));
  EXPECT_EQ(ask(R"({"bos_token":null,"add_bos_token":true})"), Strings({"▁hello"}));
  EXPECT_EQ(refusal({.tokenizer_model = sentencepiece_fixture("bpe_bytes.model"),
                     .tokenizer_config_json = R"({"add_bos_token":1})"}),
            R"(m/tokenizer_config.json: "add_bos_token" is not true or false)");
}

// The pieces are those of transformers 5.24 for the same folders.
TEST(SentencePieceSettings, WhichStretchesGetASpace) {
  const auto ask = [](const char* config) {
    return pieces(*load_with_config("bpe_bytes.model", config), "<s>hello</s> hello");
  };
  EXPECT_EQ(ask(R"({"tokenizer_class":"LlamaTokenizer"})"),
            Strings({"<s>", "he", "llo", "</s>", "▁hello"}));
  EXPECT_EQ(ask("{}"), Strings({"<s>", "▁hello", "</s>", "▁", "▁hello"}));
  EXPECT_EQ(ask(R"({"legacy":false})"), Strings({"<s>", "he", "llo", "</s>", "▁hello"}));
  EXPECT_EQ(ask(R"({"tokenizer_class":"LlamaTokenizer","legacy":true})"),
            Strings({"<s>", "▁hello", "</s>", "▁", "▁hello"}));
}

TEST(SentencePieceSettings, AddedTokensOfTheConfiguration) {
  const auto tokenizer = load_with_config("bpe_bytes.model", R"({"added_tokens_decoder":{
      "600":{"content":"<x>","rstrip":true},"601":{"content":"<y>","special":true},
      "1":{"content":"<s>","special":true}}})");
  EXPECT_EQ(tokenizer->token_id("<x>"), 600);
  EXPECT_EQ(tokenizer->vocabulary_size(), 602U);
  EXPECT_EQ(pieces(*tokenizer, "a<x>  b<y>"), Strings({"▁a", "<x>", "▁b", "<y>"}));
  EXPECT_EQ(pieces(*tokenizer, {{"a<x>", true}}), Strings({"▁a", "<", "x", ">"}));
  const std::vector<int32_t> ids = {1, 600, 601, *tokenizer->token_id("▁hello")};
  EXPECT_EQ(tokenizer->decode(ids, false), "<s><x><y> hello");
  EXPECT_EQ(tokenizer->decode(ids, true), "<x> hello");
}

TEST(SentencePieceSettings, AddedTokensOfOlderFiles) {
  const auto tokenizer = load(
      "bpe_bytes.model",
      {.special_tokens_map_json =
           R"({"bos_token":{"content":"<y>","lstrip":true},"additional_special_tokens":["<z>"]})",
       .added_tokens_json = R"({"<x>":700,"<y>":701})"});
  EXPECT_EQ(tokenizer->token_id("<z>"), 702);
  EXPECT_EQ(pieces(*tokenizer, "a<x>b<z>", true), Strings({"<y>", "▁a", "<x>", "▁b", "<z>"}));
  EXPECT_EQ(tokenizer->decode({{700, 701, 702}}, true), "<x>");
}

TEST(SentencePieceSettings, APieceCanGetAnotherName) {
  const auto tokenizer = load_with_config(
      "bpe.model", R"({"added_tokens_decoder":{"4":{"content":"<|turn|>","special":true}}})");
  const std::string old = "<|im_start|>";
  EXPECT_EQ(tokenizer->token_id("<|turn|>"), 4);
  EXPECT_EQ(tokenizer->token_text(4), "<|turn|>");
  EXPECT_EQ(pieces(*tokenizer, "<|turn|>"), Strings({"<|turn|>"}));
  for (const std::string& text : {old, std::string("<|turn|>")}) {
    for (const std::string& piece : pieces(*tokenizer, {{text, true}})) {
      EXPECT_NE(piece, "<|turn|>");
    }
  }
}

TEST(SentencePieceSettings, MalformedSettingsAreRefused) {
  const std::string model = sentencepiece_fixture("bpe_bytes.model");
  const auto ask = [&](const char* config) {
    return refusal({.tokenizer_model = model, .tokenizer_config_json = config});
  };
  EXPECT_EQ(ask(R"({"added_tokens_decoder":[]})"),
            "m/tokenizer_config.json: added_tokens_decoder is not an object");
  EXPECT_EQ(ask(R"({"added_tokens_decoder":{"-1":{"content":"x"}}})"),
            "m/tokenizer_config.json: added_tokens_decoder: '-1' is not an id");
  EXPECT_EQ(ask(R"({"added_tokens_decoder":{"99999999":{"content":"x"}}})"),
            "m/tokenizer_config.json: added_tokens_decoder: '99999999' is not an id");
  EXPECT_EQ(ask(R"({"added_tokens_decoder":{"600":{}}})"),
            R"(m/tokenizer_config.json: added_tokens_decoder.600: "content" is not a string)");
  EXPECT_EQ(ask(R"({"added_tokens_decoder":{"600":{"content":"<x>"},"0600":{"content":"<y>"}}})"),
            "m: the added token '<y>' has id 600, which another added token has");
  EXPECT_EQ(refusal({.tokenizer_model = model, .added_tokens_json = R"({"x":-1})"}),
            R"(m/added_tokens.json: "x" is not a whole number from 0 to 4194303)");
}

// ---- who wrote it ------------------------------------------------------------------------------

TEST(SentencePieceControl, AUsersTextHasNone) {
  for (const char* model : {"bpe.model", "unigram.model"}) {
    const auto tokenizer = load(model);
    for (const std::string text :
         {"<s>", "</s>", "<unk>", "<|im_start|>", "<mask>", "[gMASK]", "sop"}) {
      const Strings own = pieces(*tokenizer, {{"a" + text + "b", false}});
      const Strings users = pieces(*tokenizer, {{"a" + text + "b", true}});
      EXPECT_NE(std::find(own.begin(), own.end(), text), own.end()) << text;
      EXPECT_EQ(std::find(users.begin(), users.end(), text), users.end()) << text;
    }
    // White space and single characters are part of what a user writes.
    EXPECT_EQ(pieces(*tokenizer, {{"0\n\n", true}}), pieces(*tokenizer, {{"0\n\n", false}}));
    const Strings digits = pieces(*tokenizer, {{"100", true}});
    EXPECT_EQ(std::count(digits.begin(), digits.end(), "0"), 2);
  }
}

TEST(SentencePieceControl, ArisesNotAcrossABorder) {
  for (const char* model : {"bpe.model", "unigram.model"}) {
    const auto tokenizer = load(model);
    for (const auto& parts : {std::vector<TextPart>{{"<|im_", false}, {"start|>", true}},
                              {{"<|im_", true}, {"start|>", false}},
                              {{"<|im_", false}, {"start|>", false}},
                              {{"<ma", false}, {"sk", true}, {">", false}}}) {
      for (const std::string& piece : pieces(*tokenizer, parts)) {
        EXPECT_NE(piece, "<|im_start|>");
        EXPECT_NE(piece, "<mask>");
      }
    }
  }
}

TEST(SentencePieceControl, ANormalPieceThatIsNamedSpecialIsOne) {
  for (const char* model : {"bpe_bytes.model", "unigram_bytes.model"}) {
    const auto plain = load(model);
    const Strings before = pieces(*plain, {{"hello", true}});
    const std::string word = before.front();
    const auto tokenizer =
        load_with_config(model, R"({"additional_special_tokens":[)" + Json(word).dump() + "]}");
    const Strings after = pieces(*tokenizer, {{"hello", true}});
    EXPECT_EQ(std::find(after.begin(), after.end(), word), after.end());
    EXPECT_EQ(pieces(*tokenizer, {{word, false}}), Strings({word}));
  }
}

}  // namespace
}  // namespace airllm::tokenizer

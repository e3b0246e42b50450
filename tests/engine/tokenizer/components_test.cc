#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/split.h"
#include "engine/tokenizer/tokenizer_file.h"
#include "engine/tokenizer/vocabulary.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

std::string message_of(const std::string& json) {
  const auto result = Tokenizer::from_json(json, "dir/tokenizer.json");
  EXPECT_FALSE(result) << json;
  if (result) return "";
  EXPECT_EQ(result.error().code, ErrorCode::kData) << json;
  EXPECT_TRUE(result.error().message.starts_with("dir/tokenizer.json")) << result.error().message;
  return result.error().message;
}

TEST(Vocabulary, FindsWhatWasAdded) {
  Vocabulary vocabulary;
  for (int32_t id = 0; id < 5000; ++id) {
    ASSERT_TRUE(vocabulary.add("t" + std::to_string(id), 2 * id));
  }
  ASSERT_TRUE(vocabulary.add("", 1));
  EXPECT_EQ(vocabulary.size(), 5001U);
  EXPECT_EQ(vocabulary.id_limit(), 9999U);
  EXPECT_EQ(vocabulary.id("t4999"), 9998);
  EXPECT_EQ(vocabulary.text(9998), "t4999");
  EXPECT_EQ(vocabulary.text(1), "");
  for (const int32_t hole : {-1, 3, 9999, INT32_MAX}) EXPECT_FALSE(vocabulary.text(hole)) << hole;
  EXPECT_FALSE(vocabulary.id("t5000"));
  EXPECT_FALSE(vocabulary.add("t7", 3));
  EXPECT_FALSE(vocabulary.add("new", 4));
  EXPECT_FALSE(vocabulary.add("new", -1));
  EXPECT_FALSE(vocabulary.add("new", int64_t{kMaxTokenId} + 1));
}

TEST(TokenizerFile, UnknownComponentsAreNamed) {
  const std::string model = R"("model": {"type": "BPE", "vocab": {"a": 0}, "merges": []})";
  const std::pair<std::string, const char*> cases[] = {
      {R"({"model": {"type": "Bigram", "vocab": {}}})", "'Bigram' is not supported"},
      {"{" + model + R"(, "normalizer": {"type": "Precompiled"}})",
       "normalizer: \"precompiled_charsmap\" is not a string"},
      {"{" + model + R"(, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "ab=c"}})",
       "normalizer: \"precompiled_charsmap\" is not base64"},
      {"{" + model +
           R"(, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}})",
       "normalizer: precompiled_charsmap: the map is shorter than its header"},
      {"{" + model + R"(, "normalizer": {"type": "Fancy"}})", "normalizer: 'Fancy'"},
      {"{" + model + R"(, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nope"}]}})",
       "'Nope'"},
      {"{" + model + R"(, "pre_tokenizer": {"type": "Bert"}})", "pre_tokenizer: 'Bert'"},
      {"{" + model + R"(, "post_processor": {"type": "Roberta"}})", "post_processor: 'Roberta'"},
      {"{" + model + R"(, "decoder": {"type": "CTC"}})", "decoder: 'CTC'"},
      {"{" + model + R"(, "version": "2.0"})", "version 2.0"},
      {R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 1.1}})", "dropout"},
  };
  for (const auto& [json, problem] : cases) {
    EXPECT_NE(message_of(json).find(problem), std::string::npos) << message_of(json);
  }
}

TEST(TokenizerFile, BrokenPiecesAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"([["a", 0.5], ["a", 1]])", "occurs twice"},
      {R"([["a"]])", "entry 0 is not a piece"},
      {R"([["a", 1, 2]])", "entry 0 is not a piece"},
      {R"([[1, "a"]])", "entry 0 is not a piece"},
      {R"(["a", 1])", "entry 0 is not a piece"},
      {R"([["a", 1], {"b": 2}])", "entry 1 is not a piece"},
      {R"([["a", 1]], "unk_id": 1)", "unk_id"},
  };
  for (const auto& [vocabulary, problem] : cases) {
    const std::string json =
        std::string(R"({"model": {"type": "Unigram", "vocab": )") + vocabulary + "}}";
    EXPECT_NE(message_of(json).find(problem), std::string::npos) << message_of(json);
  }
}

TEST(Unigram, TakesTheBestScoreAndFusesUnknownCharacters) {
  const auto tokenizer = make_tokenizer(Json::parse(
      R"({"model": {"type": "Unigram", "unk_id": 0,
          "vocab": [["?", -1], ["a", -1], ["b", -1], ["ab", -1.5], ["aba", -4]]}})"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "aba"), (std::vector<int32_t>{3, 1}));
  EXPECT_EQ(encode(*tokenizer, "xyzb"), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(encode(*tokenizer, std::string(1000000, 'a')).size(), 1000000U);
}

TEST(WordPiece, TakesTheLongestPiecesOrTheUnknownToken) {
  const auto tokenizer = make_tokenizer(Json::parse(
      R"({"model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
          "max_input_chars_per_word": 5, "vocab": {"?": 0, "a": 1, "ab": 2, "##b": 3}}})"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "abb"), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(encode(*tokenizer, "aba"), (std::vector<int32_t>{0}));
  EXPECT_EQ(encode(*tokenizer, "abbbbb"), (std::vector<int32_t>{0}));
}

TEST(WordLevel, AMissingUnknownTokenIsAnError) {
  const auto tokenizer = make_tokenizer(
      Json::parse(R"({"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"ab": 4}}})"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "ab"), (std::vector<int32_t>{4}));
  const TextPart part{"b", false};
  EXPECT_FALSE(tokenizer->encode({&part, 1}, {}));
}

TEST(Bpe, DropoutIsIgnored) {
  const auto tokenizer = make_tokenizer(Json::parse(
      R"({"model": {"type": "BPE", "dropout": 0.9, "vocab": {"a": 0, "b": 1, "ab": 2},
          "merges": ["a b"]}})"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "abab"), (std::vector<int32_t>{2, 2}));
}

TEST(TokenizerFile, BrokenFilesAreRefused) {
  const char* cases[] = {
      "",
      "null",
      "[]",
      "{",
      "{}",
      R"({"model": 1})",
      R"({"model": {"type": "BPE"}})",
      R"({"model": {"type": "BPE", "vocab": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 1.5}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 18446744073709551615}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": {}}, "merges": []}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a a"]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [[["a"], "a"]]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "model": {}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": 1})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "added_tokens": [{"id": 0, "content": "b"}]})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "added_tokens": [{"id": 4194304, "content": "b"}]})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "pre_tokenizer": {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"}})",
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken":
          {"id": "x"}}], "special_tokens": {}}})",
  };
  for (const char* json : cases) message_of(json);
  message_of(std::string("{\"x\": ") + std::string(100000, '['));
}

TEST(TokenizerFile, BothFormsOfMergesMeanTheSame) {
  const std::string vocab = R"("vocab": {"a": 0, "b": 1, "ab": 2, "aba": 3})";
  for (const std::string merges : {R"("merges": ["#version: 0.2", "a b", "ab a"])",
                                   R"("merges": [["a", "b"], ["ab", "a"]])"}) {
    // In either order of the two members.
    for (const std::string& model : {vocab + "," + merges, merges + "," + vocab}) {
      const auto tokenizer =
          Tokenizer::from_json(R"({"model": {"type": "BPE",)" + model + "}}", "t");
      ASSERT_TRUE(tokenizer) << tokenizer.error().message;
      EXPECT_EQ(encode(**tokenizer, "abaab"), (std::vector<int32_t>{3, 2}));
    }
  }
}

// A quadratic algorithm takes hours for a million; sanitizers slow a linear one twentyfold.
constexpr std::chrono::seconds kNotQuadratic(60);

TEST(Bpe, LongWordsTakeNoQuadraticTime) {
  std::string emoji;
  for (int i = 0; i < 250000; ++i) emoji += "\U0001f469\u200d\U0001f4bb\u200d";
  for (const char* name : {"byte_fallback.json", "byte_level.json"}) {
    const auto tokenizer = make_tokenizer(read_fixture(name));
    ASSERT_NE(tokenizer, nullptr);
    for (const std::string& text : {std::string(1000000, 'a'), std::string(1000000, ' '), emoji}) {
      const auto begin = std::chrono::steady_clock::now();
      const auto ids = encode(*tokenizer, text, false);
      EXPECT_EQ(tokenizer->decode(ids, false), text);
      EXPECT_LT(std::chrono::steady_clock::now() - begin, kNotQuadratic);
    }
  }
}

// A long word in pieces between gaps, against the same word whole: with `ignore_merges` nothing is
// cut, and no word here is a token.
TEST(Bpe, AWordCutAtGapsEqualsTheWholeWord) {
  std::mt19937 random(std::random_device{}());
  constexpr int kLetters = 6;
  for (int round = 0; round < 300; ++round) {
    Json vocabulary = Json::object();
    std::vector<std::string> tokens;
    const auto add = [&](const std::string& token) {
      if (vocabulary.contains(token)) return;
      vocabulary[token] = tokens.size();
      tokens.push_back(token);
    };
    // One letter is missing: it becomes bytes, the unknown token, or nothing.
    for (int c = 1; c < kLetters; ++c) add(std::string(1, static_cast<char>('a' + c)));
    add("<unk>");
    const bool bytes = random() % 2 == 0;
    const unsigned absent = random() % 3 == 0 ? 0x61 : 256;
    for (unsigned byte = 0; bytes && byte < 256; ++byte) {
      constexpr const char* kDigits = "0123456789ABCDEF";
      if (byte != absent) add(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
    }
    Json merges = Json::array();
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[random() % std::min<size_t>(tokens.size(), 12)];
      const std::string right = tokens[random() % tokens.size()];
      add(left + right);
      merges.push_back({left, right});
    }
    Json model = {{"type", "BPE"},          {"vocab", vocabulary},
                  {"merges", merges},       {"byte_fallback", bytes},
                  {"ignore_merges", false}, {"fuse_unk", random() % 2 == 0}};
    if (random() % 2 == 0) model["unk_token"] = "<unk>";
    const auto cutting = make_tokenizer({{"model", model}});
    model["ignore_merges"] = true;
    const auto whole = make_tokenizer({{"model", model}});
    ASSERT_TRUE(cutting != nullptr && whole != nullptr);
    for (int i = 0; i < 20; ++i) {
      std::string word;
      while (word.size() < 60) word += static_cast<char>('a' + random() % kLetters);
      ASSERT_EQ(encode(*cutting, word), encode(*whole, word)) << model.dump() << ": " << word;
    }
  }
}

TEST(Bpe, AMissingUnknownTokenIsAnErrorOnlyWhenNeeded) {
  const auto tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"a": 0}, "merges": []}})", "t");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(encode(**tokenizer, "aa").size(), 2U);
  const TextPart part{"ab", true};
  EXPECT_FALSE((*tokenizer)->encode({&part, 1}, {}));
}

TEST(AddedTokens, WhiteSpaceThatTakesWhiteSpaceTakesNoQuadraticTime) {
  for (const char* strip : {"lstrip", "rstrip"}) {
    Json json = read_fixture("byte_level.json");
    json["added_tokens"] = {{{"id", 900}, {"content", "\n "}, {strip, true}, {"special", true}}};
    const auto tokenizer = make_tokenizer(json);
    ASSERT_NE(tokenizer, nullptr);
    std::string text;
    for (int i = 0; i < 500000; ++i) text += "\n ";
    const auto begin = std::chrono::steady_clock::now();
    const TextPart part{text, false};
    const auto ids = tokenizer->encode({&part, 1}, {.add_special = false});
    ASSERT_TRUE(ids);
    EXPECT_EQ(*ids, std::vector<int32_t>(500000, 900)) << strip;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, kNotQuadratic);
  }
}

TEST(Tokenizer, SpecialTokensAreAddedOnRequest) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_fallback.json"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "", true), std::vector<int32_t>{1});
  EXPECT_EQ(encode(*tokenizer, "", false), std::vector<int32_t>{});
  EXPECT_EQ(tokenizer->token_id("<s>"), 1);
  EXPECT_FALSE(tokenizer->token_id("no such token"));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{1, 2}, true), "");
}

TEST(Pattern, EmptyMatchesEndTheSearch) {
  const auto pattern = Pattern::regex("x*", "p");
  ASSERT_TRUE(pattern);
  const auto matches = pattern->find_all("\u00e9xxa");
  ASSERT_TRUE(matches);
  for (const Range& match : *matches) EXPECT_LE(match.end, 5U);
  EXPECT_TRUE(pattern->find_all(""));
}

TEST(Pattern, RunawayExpressionsEndWithAnError) {
  const auto pattern = Pattern::regex("(a|a)*[xy]", "p");
  ASSERT_TRUE(pattern) << pattern.error().message;
  const auto matches = pattern->find_all(std::string(60, 'a') + "bx");
  ASSERT_FALSE(matches);
  EXPECT_EQ(matches.error().code, ErrorCode::kData);
}

TEST(Normalizer, TheCharacterBeforeTheFinalConsonantsStays) {
  std::vector<std::unique_ptr<Normalizer>> composing;
  composing.push_back(Normalizer::nfc());
  for (const char* type : {"NFC", "NFKC"}) {
    auto made = Normalizer::from_json({{"type", type}}, "n");
    ASSERT_TRUE(made);
    composing.push_back(std::move(*made));
  }
  const std::pair<const char*, const char*> cases[] = {
      {"\u110e\u1161\u11a7", "\ucc28\u11a7"},
      {"\uac00\u11a7\u11a8", "\uac00\u11a7\u11a8"},
      {"\uac00\u11a8", "\uac01"},
      {"\u11a7\u1100\u1161e\u0301", "\u11a7\uac00\u00e9"}};
  for (const auto& normalizer : composing) {
    for (const auto& [text, expected] : cases) {
      const auto result = normalizer->apply(text::MarkedText(text, 0));
      ASSERT_TRUE(result);
      EXPECT_EQ(result->text(), expected);
    }
  }
}

std::string decode_with(const char* decoder_json, const std::vector<std::string>& tokens) {
  const Json json = *parse_json(decoder_json, "d");
  const auto decoder = Decoder::from_json(json.is_null() ? nullptr : &json, "d");
  EXPECT_TRUE(decoder) << decoder.error().message;
  Decoder::Run run(**decoder);
  std::string text;
  for (const std::string& token : tokens) text += run.push(token);
  return text + run.finish();
}

TEST(Decoder, StripTakesFromBothEndsOfEachToken) {
  const char* both = R"({"type": "Strip", "content": "x", "start": 1, "stop": 2})";
  EXPECT_EQ(decode_with(both, {"xxaxxx", "x", "", "axbx", "xxxx"}), "xaxaxbx");
  // Behind Fuse there is one long token, whose end is known only at the end.
  const char* fused = R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Strip", "content": "x", "start": 2, "stop": 2}]})";
  EXPECT_EQ(decode_with(fused, {"x", "x", "xa", "x", "", "xx"}), "xax");
}

TEST(Decoder, ReplaceBehindFuseSeesTheWholeText) {
  const char* json = R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Replace", "pattern": {"Regex": "b+"}, "content": "-"}]})";
  EXPECT_EQ(decode_with(json, {"ab", "b", "bc"}), "a-c");
}

TEST(Decoder, ALiteralIsReplacedAcrossTokensOfFuseOnly) {
  const auto json = [](const char* before, const char* literal) {
    return std::string(R"({"type": "Sequence", "decoders": [)") + before +
           R"({"type": "Replace", "pattern": {"String": ")" + literal + R"("}, "content": "-"}]})";
  };
  const char* fuse = R"({"type": "Fuse"},)";
  EXPECT_EQ(decode_with(json(fuse, "aab").c_str(), {"a", "aa", "b", "aa", "baa"}), "a--aa");
  EXPECT_EQ(decode_with(json("", "aab").c_str(), {"a", "aa", "b", "aa", "baab"}), "aaabaab-");
  EXPECT_EQ(decode_with(json(fuse, "aa").c_str(), {"aa", "a", "b", "a"}), "-aba");
  EXPECT_EQ(decode_with(json(fuse, "abab").c_str(), {"aba", "", "ab", "ab", "ab"}), "aba-ab");
}

// Against leftmost matches in the whole text, cut into tokens in any way.
TEST(Decoder, ALiteralBehindFuseIsFoundHoweverTheTextIsCut) {
  std::mt19937 random(std::random_device{}());
  const auto letters = [&](size_t most) {
    std::string text;
    for (size_t left = random() % most; left > 0; --left) text += "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::string literal = letters(5) + "a";
    std::vector<std::string> tokens(random() % 6);
    std::string expected;
    for (std::string& token : tokens) expected += token = letters(9);
    SCOPED_TRACE(literal + " in " + expected);
    for (size_t at = expected.find(literal); at != std::string::npos;
         at = expected.find(literal, at + 2)) {
      expected.replace(at, literal.size(), "\u00e9");
    }
    const Json json = {
        {"type", "Sequence"},
        {"decoders",
         {{{"type", "Fuse"}},
          {{"type", "Replace"}, {"pattern", {{"String", literal}}}, {"content", "\u00e9"}}}}};
    ASSERT_EQ(decode_with(json.dump().c_str(), tokens), expected);
  }
}

TEST(Decoder, ALiteralBehindFuseHoldsBackOnlyWhatMayBeginIt) {
  const auto decoder = Decoder::from_json(
      &static_cast<const Json&>(*parse_json(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
          {"type": "Replace", "pattern": {"String": "\u2581x"}, "content": " "}]})",
                                            "d")),
      "d");
  ASSERT_TRUE(decoder) << decoder.error().message;
  Decoder::Run run(**decoder);
  EXPECT_EQ(run.push("ab"), "ab");
  EXPECT_EQ(run.push("c\u2581"), "c");
  EXPECT_EQ(run.push("\u2581"), "\u2581");
  EXPECT_EQ(run.push("x"), " ");
  EXPECT_EQ(run.push("\u2581"), "");
  EXPECT_EQ(run.finish(), "\u2581");
}

TEST(Decoder, WithoutOneTokensAreJoinedBySpaces) {
  EXPECT_EQ(decode_with("null", {"a", "", "b"}), "a  b");
}

}  // namespace
}  // namespace airllm::tokenizer

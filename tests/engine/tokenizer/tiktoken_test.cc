// Qwen-1's tokenizer against the tiktoken library: tools/tokenizer_fixtures/qwen1.py recorded what
// it answers.
#include "engine/tokenizer/tiktoken.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "engine/text/inert_in_unicode9.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/load_tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

constexpr const char* kQwenConfig = R"({"tokenizer_class": "QWenTokenizer"})";
constexpr const char* kFixtures = AIRLLM_SOURCE_DIR "/tests/engine/tokenizer/fixtures/";

std::string line(std::string_view bytes, size_t rank) {
  return base64(bytes) + ' ' + std::to_string(rank) + '\n';
}

// The 256 bytes, and `tokens` behind them.
std::string file_of(const std::vector<std::string>& tokens) {
  std::string file;
  for (size_t byte = 0; byte < 256; ++byte) {
    file += line(std::string(1, static_cast<char>(static_cast<unsigned char>(byte))), byte);
  }
  for (size_t i = 0; i < tokens.size(); ++i) file += line(tokens[i], 256 + i);
  return file;
}

std::unique_ptr<Tokenizer> qwen(std::string file) {
  auto result =
      load_tokenizer({.tiktoken = std::move(file), .tokenizer_config_json = kQwenConfig}, "m");
  EXPECT_TRUE(result) << result.error().message;
  return result ? std::move(*result) : nullptr;
}

std::unique_ptr<Tokenizer> fixture() {
  return qwen(read_text(std::string(kFixtures) + "qwen.tiktoken").value_or(""));
}

std::string message_of(const TextFiles& files) {
  const auto result = load_tokenizer(files, "m");
  EXPECT_FALSE(result);
  if (result) return "";
  EXPECT_EQ(result.error().code, ErrorCode::kData);
  EXPECT_TRUE(result.error().message.starts_with("m")) << result.error().message;
  return result.error().message;
}

std::string message_of_file(std::string file) {
  return message_of({.tiktoken = std::move(file), .tokenizer_config_json = kQwenConfig});
}

// Where the NFC of tokenizer.json may differ from Python's.
bool is_newer_than_unicode9(const std::string& string) {
  for (size_t at = 0; at < string.size();) {
    if (text::is_inert_in_unicode9(text::next_code_point(string, at))) return true;
  }
  return false;
}

TEST(Tiktoken, AgreesWithTheLibrary) {
  const auto tokenizer = fixture();
  ASSERT_NE(tokenizer, nullptr);
  const Json expected = read_fixture("qwen_tiktoken_expected.json");
  expect_answers(*tokenizer, expected);
  expect_checks(*tokenizer, expected["checks"], "qwen.tiktoken");
}

// The vocabulary of Qwen 2.5 is that of Qwen-1, so the files say the same but for control tokens.
TEST(Tiktoken, AgreesWithTheSameVocabularyInTokenizerJson) {
  const auto text = read_text(AIRLLM_SOURCE_DIR "/../shared/tokenizers/qwen2_5/tokenizer.json");
  if (!text) GTEST_SKIP() << "../shared/tokenizers/qwen2_5 is not there";
  const auto reference = Tokenizer::from_json(*text, "tokenizer.json");
  ASSERT_TRUE(reference) << reference.error().message;
  const Json json = *parse_json(*text, "tokenizer.json");
  std::vector<std::string> tokens(json["model"]["vocab"].size());
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    std::string& bytes = tokens.at(id.get<size_t>());
    for (size_t at = 0; at < token.size();) {
      bytes += static_cast<char>(*byte_of_character(text::next_code_point(token, at)));
    }
  }
  std::string file;
  for (size_t id = 0; id < tokens.size(); ++id) file += line(tokens[id], id);
  const auto tokenizer = qwen(std::move(file));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->token_id("<|endoftext|>"), 151643);
  EXPECT_EQ(tokenizer->token_id("<|extra_204|>"), 151850);
  size_t compared = 0;
  for (const std::string& string : corpus()) {
    if (is_newer_than_unicode9(string)) continue;
    ++compared;
    const TextPart part{string, true};
    const auto ids = tokenizer->encode({&part, 1}, {});
    ASSERT_TRUE(ids);
    EXPECT_EQ(*ids, *(*reference)->encode({&part, 1}, {})) << string;
    EXPECT_EQ(stream_text(*tokenizer, *ids, false), tokenizer->decode(*ids, false));
  }
  EXPECT_GT(compared, 1500U);
}

TEST(Tiktoken, OfPairsThatMakeTheSameTokenTheLeftmostIsMerged) {
  const auto tokenizer = qwen(file_of({"aa", "aaa"}));
  ASSERT_NE(tokenizer, nullptr);
  // aa, aa, a: then the last two make a token.
  EXPECT_EQ(encode(*tokenizer, "aaaaa"), (std::vector<int32_t>{256, 257}));
  EXPECT_EQ(encode(*tokenizer, "aaa"), (std::vector<int32_t>{257}));
}

TEST(Tiktoken, AWordThatIsATokenNeedsNoMerges) {
  const auto tokenizer = qwen(file_of({"abcde"}));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "abcde"), (std::vector<int32_t>{256}));
  EXPECT_EQ(encode(*tokenizer, "xabcde"), (std::vector<int32_t>{'x', 'a', 'b', 'c', 'd', 'e'}));
}

TEST(Tiktoken, ControlTokensFollowTheRanksAndAUserCannotWriteThem) {
  const auto tokenizer = qwen(file_of({"ab"}));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary_size(), 257U + 208U);
  EXPECT_EQ(tokenizer->token_id("<|endoftext|>"), 257);
  EXPECT_EQ(tokenizer->token_id("<|im_start|>"), 258);
  EXPECT_EQ(tokenizer->token_id("<|im_end|>"), 259);
  EXPECT_EQ(tokenizer->token_id("<|extra_0|>"), 260);
  EXPECT_EQ(tokenizer->token_id("<|extra_204|>"), 464);
  const std::vector<TextPart> parts = {{"<|im_start|>", false}, {"<|im_end|>", true}};
  const auto ids = tokenizer->encode(parts, {});
  ASSERT_TRUE(ids);
  EXPECT_EQ(ids->front(), 258);
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 259), 0);
  EXPECT_EQ(tokenizer->decode(*ids, true), "<|im_end|>");
  // Normalised first, as tokenization_qwen.py does: '>' takes the mark that follows.
  EXPECT_NE(encode(*tokenizer, "<|im_end|>\u0338").front(), 259);
  EXPECT_EQ(encode(*tokenizer, "e\u0301"), encode(*tokenizer, "\u00e9"));
}

TEST(Tiktoken, WrongBytesBecomeReplacementCharacters) {
  const auto tokenizer = qwen(file_of({}));
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<int32_t> ids = {0xE2, 0x82, 'a', 0xFF, 0xF0, 0x9F, 0x98};
  EXPECT_EQ(tokenizer->decode(ids, false), "\ufffda\ufffd\ufffd");
  EXPECT_EQ(stream_text(*tokenizer, ids, false), "\ufffda\ufffd\ufffd");
}

TEST(Tiktoken, RanksMayComeInAnyOrder) {
  std::string file = line("ab", 256);
  for (size_t byte = 256; byte-- > 0;) {
    file += line(std::string(1, static_cast<char>(static_cast<unsigned char>(byte))), byte);
  }
  file.pop_back();  // the last line may lack its end
  const auto tokenizer = qwen(file);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(encode(*tokenizer, "xab"), (std::vector<int32_t>{'x', 256}));
}

TEST(Tiktoken, BrokenFilesAreRefusedByLine) {
  const std::string whole = file_of({"ab"});
  const auto with = [&](const std::string& more) { return whole + more; };
  const std::pair<std::string, const char*> cases[] = {
      {"", "there is nothing in it"},
      {with("YWM 257\n"), "line 258: the token is not in base64"},
      {with("YW=j 257\n"), "line 258: the token is not in base64"},
      {with("Y*Jj 257\n"), "line 258: the token is not in base64"},
      {with("YWM= 257 \n"), "line 258: the rank is not a whole number"},
      {with("YWL= 257\n"), "line 258: the token is not in base64"},  // a bit too many
      {with("YR== 257\n"), "line 258: the token is not in base64"},
      {with("==== 257\n"), "line 258: the token is not in base64"},
      {with(" 257\n"), "line 258: the token is empty"},
      {with("YWJj\n"), "line 258: not a token in base64, a space and its rank"},
      {with("\n"), "line 258: not a token in base64, a space and its rank"},
      {with("YWJj  257\n"), "line 258: the rank is not a whole number"},
      {with("YWJj +257\n"), "line 258: the rank is not a whole number"},
      {with("YWJj -1\n"), "line 258: the rank is not a whole number"},
      {with("YWJj 257\r\n"), "line 258: the rank is not a whole number"},
      {with("YWJj 2e2\n"), "line 258: the rank is not a whole number"},
      {with("YWJj 99999999999999999999\n"), "line 258: the rank is not a whole number"},
      {with("YWJj 4194304\n"), "line 258: token 'abc' has id 4194304, which is not between"},
      {with("YWJj 256\n"), "line 258: two tokens have id 256"},
      {with("YWI= 257\n"), "line 258: token 'ab' occurs twice"},
      {with("YWJj 258\n"), "no token has rank 257"},
      {with(line(std::string(513, 'x'), 257)), "line 258: a token of more than 512 bytes"},
      {with(std::string(5000, 'A') + " 257\n"), "line 258: a token of more than 512 bytes"},
      {with(line("<|im_end|>", 257)), "'<|im_end|>' is a token with a rank"},
      {line("a", 0), "the byte 0 alone is not a token"},
  };
  for (const auto& [file, problem] : cases) {
    const std::string message = message_of_file(file);
    EXPECT_NE(message.find(problem), std::string::npos) << message << " instead of " << problem;
  }
  EXPECT_NE(qwen(with(line(std::string(512, 'x'), 257))), nullptr);
}

TEST(Tiktoken, OtherClassesAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"tokenizer_class": "TikTokenTokenizer"})", "'TikTokenTokenizer' is not known"},
      {R"({"auto_map": {"AutoTokenizer": ["tokenization_moonshot.Other", null]}})",
       "'Other' is not known"},
      {R"({"auto_map": {"AutoTokenizer": "Some"}})", "'Some' is not known"},
      {R"({"auto_map": {"AutoTokenizer": [null]}})", "names no tokenizer class"},
      {"{}", "names no tokenizer class"},
  };
  for (const auto& [config, problem] : cases) {
    const std::string message =
        message_of({.tiktoken = file_of({}), .tokenizer_config_json = config});
    EXPECT_NE(message.find(problem), std::string::npos) << message;
  }
  const std::string message = message_of({.tiktoken = file_of({})});
  EXPECT_NE(message.find("names no tokenizer class"), std::string::npos) << message;
  EXPECT_TRUE(load_tokenizer(
      {.tiktoken = file_of({}),
       .tokenizer_config_json =
           R"({"auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", null]}})"},
      "m"));
}

TEST(Tiktoken, IsRecognisedInATokenizerModel) {
  const std::string message = message_of({.tokenizer_model = file_of({})});
  EXPECT_NE(message.find("m/tokenizer.model: a tiktoken file"), std::string::npos) << message;
  EXPECT_FALSE(looks_like_tiktoken(std::string("\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", 16)));
  EXPECT_FALSE(looks_like_tiktoken(""));
}

TEST(Tiktoken, AMillionOfOneKindTakesNoQuadraticTime) {
  const auto tokenizer = fixture();
  ASSERT_NE(tokenizer, nullptr);
  std::string emoji;
  for (int i = 0; i < 250000; ++i) emoji += "\U0001f469\u200d\U0001f4bb\u200d";
  for (const std::string& text : {std::string(1000000, 'a'), std::string(1000000, ' '), emoji}) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, text), false), text);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
  }
}

}  // namespace
}  // namespace airllm::tokenizer

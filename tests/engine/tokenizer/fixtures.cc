#include "tests/engine/tokenizer/fixtures.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace airllm::tokenizer {
namespace {

constexpr size_t kCheckSize = 4;  // characters

// Ids with and without what the post-processor adds, pieces, decoded texts; streams agree.
std::string check_of(const Tokenizer& tokenizer, const std::string& text) {
  Check check;
  const std::vector<int32_t> ids = encode(tokenizer, text);
  check.add(ids);
  check.add(encode(tokenizer, text, false));
  std::string pieces;
  for (const int32_t id : ids) pieces += tokenizer.token_text(id).value_or("(no token)");
  check.add(pieces);
  for (const bool skip_special : {false, true}) {
    const std::string decoded = tokenizer.decode(ids, skip_special);
    EXPECT_EQ(stream_text(tokenizer, ids, skip_special), decoded);
    check.add(decoded);
  }
  return check.text();
}

}  // namespace

std::optional<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Json read_fixture(const std::string& name) {
  const auto text =
      read_text(std::string(AIRLLM_SOURCE_DIR "/tests/engine/tokenizer/fixtures/") + name);
  EXPECT_TRUE(text.has_value()) << name;
  auto json = parse_json(text.value_or("null"), name);
  EXPECT_TRUE(json) << json.error().message;
  return json ? *json : Json();
}

std::vector<std::string> corpus() {
  return read_fixture("corpus.json").get<std::vector<std::string>>();
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) {
      bits = bits << 8U | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    }
    for (size_t i = 0; i < 4; ++i) {
      out += at + i > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * i) & 63U];
    }
  }
  return out;
}

std::unique_ptr<Tokenizer> make_tokenizer(const Json& json) {
  auto result = Tokenizer::from_json(dump_json(json), "tokenizer.json");
  EXPECT_TRUE(result) << result.error().message;
  return result ? std::move(*result) : nullptr;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& text, bool add_special) {
  const TextPart part{text, false};
  auto ids = tokenizer.encode({&part, 1}, {.add_special = add_special});
  EXPECT_TRUE(ids) << ids.error().message;
  return ids ? *ids : std::vector<int32_t>();
}

void Check::add(const std::vector<int32_t>& ids) {
  mix(ids.size());
  for (const int32_t id : ids) mix(static_cast<uint64_t>(id));
}

void Check::add(std::string_view bytes) {
  mix(bytes.size());
  for (const char c : bytes) mix(static_cast<unsigned char>(c));
}

std::string Check::text() const {
  constexpr std::string_view kSymbols =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const uint64_t folded = value_ ^ (value_ >> 24U) ^ (value_ >> 48U);
  std::string text;
  for (const unsigned shift : {0U, 6U, 12U, 18U}) text += kSymbols[folded >> shift & 63U];
  return text;
}

std::string stream_text(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                        bool skip_special) {
  const auto stream = tokenizer.stream(skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream->push(id);
  return text + stream->finish();
}

void expect_checks(const Tokenizer& tokenizer, const Json& expected, const std::string& name) {
  const std::vector<std::string> texts = corpus();
  const std::string checks = expected.get<std::string>();
  ASSERT_GE(texts.size(), 2000U);
  ASSERT_EQ(checks.size(), kCheckSize * texts.size());
  int differences = 0;
  for (size_t i = 0; i < texts.size() && differences < 5; ++i) {
    if (check_of(tokenizer, texts[i]) == checks.substr(kCheckSize * i, kCheckSize)) continue;
    ++differences;
    ADD_FAILURE() << name << " differs from the reference on text " << i << ": "
                  << Json(texts[i]).dump(-1, ' ', true);
  }
}

void expect_answers(const Tokenizer& tokenizer, const Json& expected) {
  const std::vector<std::string> texts = corpus();
  ASSERT_GT(expected["encoded"].size(), 200U);
  for (size_t i = 0; i < expected["encoded"].size(); ++i) {
    EXPECT_EQ(encode(tokenizer, texts[i]), expected["encoded"][i].get<std::vector<int32_t>>())
        << "text " << i;
  }
  for (size_t i = 0; i < expected["ids"].size(); ++i) {
    const auto ids = expected["ids"][i].get<std::vector<int32_t>>();
    const auto text = expected["texts"][i].get<std::string>();
    const auto without_special = expected["texts_without_special"][i].get<std::string>();
    EXPECT_EQ(tokenizer.decode(ids, false), text) << i;
    EXPECT_EQ(tokenizer.decode(ids, true), without_special) << i;
    EXPECT_EQ(stream_text(tokenizer, ids, false), text) << i;
    EXPECT_EQ(stream_text(tokenizer, ids, true), without_special) << i;
  }
}

}  // namespace airllm::tokenizer

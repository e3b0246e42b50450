// Against Hugging Face tokenizers: tools/tokenizer_fixtures/generate.py recorded what it answers.
#include <gtest/gtest.h>

#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kGroup = 8;  // texts per digest

void expect_ids(const Tokenizer& tokenizer, const Json& expected) {
  const std::vector<std::string> texts = corpus();
  ASSERT_EQ(expected["encoded"].size(), texts.size());
  Digest bare;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = encode(tokenizer, texts[i]);
    EXPECT_EQ(ids, expected["encoded"][i].get<std::vector<int32_t>>()) << "text " << i;
    EXPECT_EQ(tokenizer.decode(ids, false), expected["decoded"][i].get<std::string>()) << i;
    bare.add(encode(tokenizer, texts[i], false));
  }
  EXPECT_EQ(bare.hex(), expected["bare"].get<std::string>());
  for (size_t i = 0; i < expected["ids"].size(); ++i) {
    const auto ids = expected["ids"][i].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.decode(ids, false), expected["texts"][i].get<std::string>()) << i;
    EXPECT_EQ(tokenizer.decode(ids, true), expected["texts_without_special"][i].get<std::string>())
        << i;
  }
}

void expect_digests(const Tokenizer& tokenizer, const Json& expected, const std::string& name) {
  const std::vector<std::string> texts = corpus();
  ASSERT_EQ(expected["encoded"].size(), (texts.size() + kGroup - 1) / kGroup);
  for (size_t begin = 0; begin < texts.size(); begin += kGroup) {
    Digest encoded;
    Digest decoded;
    for (size_t i = begin; i < std::min(begin + kGroup, texts.size()); ++i) {
      const auto ids = encode(tokenizer, texts[i]);
      encoded.add(ids);
      decoded.add_bytes(tokenizer.decode(ids, true));
    }
    const size_t group = begin / kGroup;
    EXPECT_EQ(encoded.hex(), expected["encoded"][group].get<std::string>())
        << name << ", texts from " << begin;
    EXPECT_EQ(decoded.hex(), expected["decoded"][group].get<std::string>())
        << name << ", texts from " << begin;
  }
}

TEST(Reference, ByteLevelTokenizer) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  expect_ids(*tokenizer, read_fixture("byte_level_expected.json"));
}

TEST(Reference, ByteFallbackTokenizer) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_fallback.json"));
  ASSERT_NE(tokenizer, nullptr);
  expect_ids(*tokenizer, read_fixture("byte_fallback_expected.json"));
}

TEST(Reference, VariantsOfAllComponents) {
  const Json variants = read_fixture("variants.json");
  ASSERT_GT(variants.size(), 30U);
  for (const auto& [name, variant] : variants.items()) {
    Json json = read_fixture(variant["base"].get<std::string>() + ".json");
    for (const auto& [key, value] : variant["changes"].items()) {
      if (key == "model") {
        json["model"].update(value);
      } else {
        json[key] = value;
      }
    }
    const auto tokenizer = make_tokenizer(json);
    ASSERT_NE(tokenizer, nullptr) << name;
    expect_digests(*tokenizer, variant, name);
  }
}

TEST(Reference, BundledTokenizer) {
  const auto text = read_text(AIRLLM_SOURCE_DIR "/models/demo/tokenizer.json");
  if (!text) GTEST_SKIP() << "models/demo has no tokenizer";
  const auto tokenizer = Tokenizer::from_json(*text, "models/demo/tokenizer.json");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const std::string& string : corpus()) {
    EXPECT_EQ((*tokenizer)->decode(encode(**tokenizer, string, false), false), string);
  }
  EXPECT_TRUE((*tokenizer)->token_id("<|end|>").has_value());
}

class PublishedTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(PublishedTokenizer, AgreesWithTheReference) {
  const std::string name = GetParam();
  const std::string folder = name == "stories260k" ? "models/" : "tokenizers/";
  const std::string path =
      std::string(AIRLLM_SOURCE_DIR "/../shared/") + folder + name + "/tokenizer.json";
  const auto text = read_text(path);
  if (!text) GTEST_SKIP() << path << " is not there";
  const auto tokenizer = Tokenizer::from_json(*text, path);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  expect_digests(**tokenizer, read_fixture("real.json")[name], name);
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedTokenizer,
                         testing::Values("stories260k", "llama2", "llama3_1", "qwen2_5", "qwen3",
                                         "mistral_nemo", "deepseek_v3", "gemma2"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace airllm::tokenizer

// Against Hugging Face tokenizers: tools/tokenizer_fixtures/generate.py recorded what it answers.
#include <gtest/gtest.h>

#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

void expect_equal(const std::string& name) {
  const auto tokenizer = make_tokenizer(read_fixture(name + ".json"));
  ASSERT_NE(tokenizer, nullptr);
  const Json expected = read_fixture(name + "_expected.json");
  expect_answers(*tokenizer, expected);
  expect_checks(*tokenizer, expected["checks"], name);
}

TEST(Reference, ByteLevelTokenizer) { expect_equal("byte_level"); }

TEST(Reference, ByteFallbackTokenizer) { expect_equal("byte_fallback"); }

TEST(Reference, TokenizerWithAffixes) { expect_equal("affixes"); }

TEST(Reference, UnigramTokenizer) { expect_equal("unigram"); }

TEST(Reference, WordPieceTokenizer) { expect_equal("word_piece"); }

TEST(Reference, WordLevelTokenizer) { expect_equal("word_level"); }

TEST(Reference, DropoutIsForTrainingOnly) {
  Json json = read_fixture("byte_level.json");
  json["model"]["dropout"] = 0.5;
  const auto tokenizer = make_tokenizer(json);
  ASSERT_NE(tokenizer, nullptr);
  expect_checks(*tokenizer, read_fixture("byte_level_expected.json")["checks"], "dropout");
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
    expect_checks(*tokenizer, variant["checks"], name);
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
  expect_checks(**tokenizer, read_fixture("real.json")[name], name);
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedTokenizer,
                         testing::Values("stories260k", "llama2", "llama3_1", "qwen2_5", "qwen3",
                                         "mistral_nemo", "deepseek_v3", "gemma2", "baichuan2",
                                         "chatglm3", "internlm2"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace airllm::tokenizer

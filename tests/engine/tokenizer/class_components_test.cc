// Components that work by classes of characters, against what
// tools/tokenizer_fixtures/class_components.py recorded of Hugging Face tokenizers.
#include <gtest/gtest.h>

#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

using Strings = std::vector<std::string>;

TEST(ClassComponents, NormalizersAgree) {
  const Json all = read_fixture("class_components.json");
  const auto texts = all["texts"].get<Strings>();
  for (const Json& entry : all["normalizer"]) {
    const auto component = Normalizer::from_json(entry[0], "n");
    ASSERT_TRUE(component) << component.error().message;
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto result = (*component)->apply(text::MarkedText(texts[i], 3));
      ASSERT_TRUE(result);
      EXPECT_EQ(result->text(), entry[1][i].get<std::string>()) << entry[0].dump() << " on " << i;
      for (const auto& run : result->runs()) EXPECT_EQ(run.origin, 3);
    }
  }
}

TEST(ClassComponents, PreTokenizersAgree) {
  const Json all = read_fixture("class_components.json");
  const auto texts = all["texts"].get<Strings>();
  for (const Json& entry : all["pre_tokenizer"]) {
    const auto component = PreTokenizer::from_json(entry[0], "p");
    ASSERT_TRUE(component) << component.error().message;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].empty()) continue;
      Words words{.text = texts[i], .words = {{0, static_cast<uint32_t>(texts[i].size()), true}}};
      ASSERT_TRUE((*component)->apply(words));
      Strings pieces;
      for (const auto& word : words.words) pieces.emplace_back(words.view(word));
      EXPECT_EQ(pieces, entry[1][i].get<Strings>()) << entry[0].dump() << " on " << i;
    }
  }
}

TEST(ClassComponents, DecodersAgree) {
  const Json all = read_fixture("class_components.json");
  const auto lists = all["lists"].get<std::vector<Strings>>();
  for (const Json& entry : all["decoder"]) {
    const auto component = Decoder::from_json(&entry[0], "d");
    ASSERT_TRUE(component) << component.error().message;
    for (size_t i = 0; i < lists.size(); ++i) {
      Decoder::Run run(**component);
      std::string text;
      for (const std::string& token : lists[i]) text += run.push(token);
      text += run.finish();
      EXPECT_EQ(text, entry[1][i].get<std::string>()) << entry[0].dump() << " on " << i;
    }
  }
}

}  // namespace
}  // namespace airllm::tokenizer

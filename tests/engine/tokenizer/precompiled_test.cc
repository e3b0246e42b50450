// The normalizer Precompiled, against what tools/tokenizer_fixtures/precompiled.py recorded of
// Hugging Face tokenizers.
#include <gtest/gtest.h>

#include "engine/tokenizer/normalizer.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/engine/tokenizer/sentencepiece_fixtures.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kCheckSize = 2;  // characters

std::unique_ptr<Normalizer> normalizer_of(const std::string& charsmap) {
  auto made =
      Normalizer::from_json({{"type", "Precompiled"}, {"precompiled_charsmap", charsmap}}, "n");
  EXPECT_TRUE(made) << made.error().message;
  return made ? std::move(*made) : nullptr;
}

std::string normalized(const Normalizer& normalizer, const std::string& text) {
  const auto result = normalizer.apply(text::MarkedText(text, 3));
  EXPECT_TRUE(result);
  if (!result) return "";
  for (const auto& run : result->runs()) EXPECT_EQ(run.origin, 3);
  return result->text();
}

TEST(Precompiled, AgreesWithTheReference) {
  const Json fixture = read_fixture("precompiled.json");
  const auto texts = fixture["texts"].get<std::vector<std::string>>();
  const std::vector<std::string> all = corpus();
  ASSERT_EQ(fixture["maps"].size(), 2U);
  for (const auto& [name, map] : fixture["maps"].items()) {
    const std::string charsmap = name == "rules"
                                     ? map["charsmap"].get<std::string>()
                                     : base64(sentencepiece_fixture("nmt_nfkc.charsmap"));
    const auto normalizer = normalizer_of(charsmap);
    ASSERT_NE(normalizer, nullptr);
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(normalized(*normalizer, texts[i]), map["normalized"][i].get<std::string>())
          << name << ", " << Json(texts[i]).dump(-1, ' ', true);
    }
    const auto checks = map["checks"].get<std::string>();
    ASSERT_EQ(checks.size(), kCheckSize * all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      Check check;
      check.add(normalized(*normalizer, all[i]));
      EXPECT_EQ(check.text().substr(0, kCheckSize), checks.substr(kCheckSize * i, kCheckSize))
          << name << ", " << Json(all[i]).dump(-1, ' ', true);
    }
  }
}

TEST(Precompiled, NewTextIsTheUsersWhereItsClusterIs) {
  const Json fixture = read_fixture("precompiled.json");
  const auto normalizer = normalizer_of(fixture["maps"]["rules"]["charsmap"].get<std::string>());
  text::MarkedText text("xa", 0);
  text.append("\u0301a", text::kUserOrigin);
  const auto result = normalizer->apply(text);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->text(), "xAA");
  EXPECT_EQ(result->origin_at(0), 0);
  EXPECT_EQ(result->origin_at(1), text::kUserOrigin);
  EXPECT_EQ(result->origin_at(2), text::kUserOrigin);
}

}  // namespace
}  // namespace airllm::tokenizer

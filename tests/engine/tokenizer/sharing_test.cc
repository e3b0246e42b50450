#include <gtest/gtest.h>

#include <thread>

#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

TEST(Tokenizer, ThreadsShareIt) {
  const auto tokenizer = make_tokenizer(read_fixture("byte_level.json"));
  ASSERT_NE(tokenizer, nullptr);
  const auto texts = corpus();
  std::vector<std::vector<int32_t>> expected;
  for (const std::string& text : texts) expected.push_back(encode(*tokenizer, text));
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i)
        EXPECT_EQ(encode(*tokenizer, texts[i]), expected[i]);
    });
  }
}

}  // namespace
}  // namespace airllm::tokenizer

#include "engine/sampling/generation_config.h"

#include <gtest/gtest.h>

namespace airllm::sampling {
namespace {

TEST(GenerationConfig, EndTokensAreOneOrSeveral) {
  EXPECT_EQ(parse_generation_config(R"({"eos_token_id": 2})", "g")->end_tokens,
            std::vector<int32_t>{2});
  EXPECT_EQ(parse_generation_config(R"({"eos_token_id": [7, 0, 2147483647]})", "g")->end_tokens,
            (std::vector<int32_t>{7, 0, 2147483647}));
  EXPECT_TRUE(parse_generation_config(R"({"eos_token_id": null})", "g")->end_tokens.empty());
  EXPECT_TRUE(parse_generation_config("{}", "g")->end_tokens.empty());
}

TEST(GenerationConfig, SamplingOptionsCountOnlyWithDoSample) {
  const auto greedy = parse_generation_config(
      R"({"temperature": 0.6, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1})", "g");
  ASSERT_TRUE(greedy);
  EXPECT_EQ(greedy->temperature, 0);
  EXPECT_FALSE(greedy->top_p || greedy->top_k || greedy->min_p);
  EXPECT_EQ(greedy->repetition_penalty, 1.1);
  const auto sampled = parse_generation_config(
      R"({"do_sample": true, "temperature": 0.6, "top_p": 1, "top_k": 40, "min_p": 0.05})", "g");
  ASSERT_TRUE(sampled);
  EXPECT_EQ(sampled->temperature, 0.6);
  EXPECT_EQ(sampled->top_p, 1);
  EXPECT_EQ(sampled->top_k, 40);
  EXPECT_EQ(sampled->min_p, 0.05);
  EXPECT_FALSE(sampled->repetition_penalty);
  EXPECT_EQ(parse_generation_config(R"({"do_sample": true})", "g")->temperature, 1);
}

TEST(GenerationConfig, WrongValuesNameFileAndKey) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"eos_token_id": "2"})", "eos_token_id"},
      {R"({"eos_token_id": 2.5})", "eos_token_id"},
      {R"({"eos_token_id": [1, -1]})", "eos_token_id"},
      {R"({"eos_token_id": 2147483648})", "eos_token_id"},
      {R"({"eos_token_id": 18446744073709551615})", "eos_token_id"},
      {R"({"eos_token_id": [[1]]})", "eos_token_id"},
      {R"({"temperature": "hot"})", "temperature"},
      {R"({"temperature": -1})", "temperature"},
      {R"({"top_p": 1.5})", "top_p"},
      {R"({"min_p": true})", "min_p"},
      {R"({"top_k": 1.5})", "top_k"},
      {R"({"repetition_penalty": 0})", "repetition_penalty"},
      {R"({"do_sample": 1})", "do_sample"},
  };
  for (const auto& [json, key] : cases) {
    const auto result = parse_generation_config(json, "dir/generation_config.json");
    ASSERT_FALSE(result) << json;
    EXPECT_EQ(result.error().code, ErrorCode::kData);
    EXPECT_NE(result.error().message.find(key), std::string::npos) << result.error().message;
    EXPECT_TRUE(result.error().message.starts_with("dir/generation_config.json"));
  }
  EXPECT_FALSE(parse_generation_config("[]", "g"));
  EXPECT_FALSE(parse_generation_config("{", "g"));
}

}  // namespace
}  // namespace airllm::sampling

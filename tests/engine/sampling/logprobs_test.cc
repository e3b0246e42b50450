#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "engine/sampling/sampler.h"

namespace airllm::sampling {
namespace {

TEST(TopLogprobs, IsTheLogSoftmaxInDescendingOrder) {
  const std::vector<float> logits = {1, 3, 2, 3};
  const auto top = top_logprobs(logits, 4);
  const double sum = std::log(std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0));
  const std::vector<int32_t> ids = {1, 3, 2, 0};  // equal ones by id
  ASSERT_EQ(top.size(), 4U);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(top[i].first, ids[i]);
    EXPECT_NEAR(top[i].second, logits[static_cast<size_t>(ids[i])] - sum, 1e-12);
  }
}

TEST(TopLogprobs, AnyCountIsThePrefixOfAll) {
  std::mt19937 random(std::random_device{}());
  std::vector<float> logits(997);
  for (float& logit : logits) logit = static_cast<float>(random() % 50) / 4;  // many ties
  const auto all = top_logprobs(logits, 5000);
  ASSERT_EQ(all.size(), logits.size());
  double sum = 0;
  for (const auto& [id, logprob] : all) sum += std::exp(logprob);
  EXPECT_NEAR(sum, 1, 1e-9);
  for (const size_t count : {size_t{0}, size_t{1}, size_t{2}, size_t{31}, size_t{996}}) {
    const auto some = top_logprobs(logits, count);
    ASSERT_EQ(some.size(), count);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  }
}

TEST(TopLogprobs, LargeAndInfiniteLogitsStayFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto large = top_logprobs(std::vector<float>{3e38F, -3e38F, 3e38F}, 3);
  EXPECT_NEAR(large[0].second, std::log(0.5), 1e-12);
  const auto masked = top_logprobs(std::vector<float>{-infinity, 0, NAN}, 3);
  EXPECT_EQ(masked[0], (std::pair<int32_t, double>{1, 0.0}));
  EXPECT_EQ(masked[1].second, -infinity);
  EXPECT_EQ(masked[2].second, -infinity);
  EXPECT_TRUE(top_logprobs({}, 3).empty());
}

}  // namespace
}  // namespace airllm::sampling

#include "engine/sampling/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace airllm::sampling {
namespace {

std::map<int32_t, int> draw(const SamplerSettings& settings, const std::vector<float>& logits,
                            int count) {
  Sampler sampler(settings);
  std::map<int32_t, int> drawn;
  for (int i = 0; i < count; ++i) ++drawn[sampler.sample(logits, {})];
  return drawn;
}

std::set<int32_t> support(const SamplerSettings& settings, const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : draw(settings, logits, 4000)) ids.insert(id);
  return ids;
}

std::vector<float> logs(std::vector<double> probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 5, 5, 2}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{NAN, -1, -1}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-3}, {}), 0);
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 7919) % 13);
  Sampler a({.temperature = 1, .seed = 42});
  Sampler b({.temperature = 1, .seed = 42});
  Sampler c({.temperature = 1, .seed = 43});
  int differs = 0;
  for (int i = 0; i < 100; ++i) {
    const int32_t token = a.sample(logits, {});
    EXPECT_EQ(token, b.sample(logits, {}));
    differs += token != c.sample(logits, {});
  }
  EXPECT_GT(differs, 50);
}

TEST(Sampler, TheFirstDrawsAreWhatTheRecipeSays) {
  // mt19937_64 with seed 5489 begins with these; 53 bits of each, in descending probability.
  const std::vector<float> logits = logs({0.1, 0.2, 0.3, 0.4});
  Sampler sampler({.temperature = 1, .seed = 5489});
  std::mt19937_64 random(5489);
  for (int i = 0; i < 50; ++i) {
    const double u = static_cast<double>(random() >> 11) * 0x1p-53;
    const int32_t expected = u < 0.4 ? 3 : u < 0.7 ? 2 : u < 0.9 ? 1 : 0;
    EXPECT_EQ(sampler.sample(logits, {}), expected) << u;
  }
}

TEST(Sampler, FrequenciesFollowTheTemperature) {
  // Probabilities squared and normalised at temperature 1/2: 1/14, 4/14, 9/14.
  const auto drawn = draw({.temperature = 0.5, .seed = 7}, logs({1, 2, 3}), 14000);
  EXPECT_NEAR(drawn.at(0), 1000, 200);
  EXPECT_NEAR(drawn.at(1), 4000, 300);
  EXPECT_NEAR(drawn.at(2), 9000, 300);
}

TEST(Sampler, TopKKeepsSoManyTheLowerIdsAmongEquals) {
  const std::vector<float> logits = {1, 3, 2, 2, 0};
  EXPECT_EQ(support({.temperature = 1, .top_k = 1}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 2}, logits), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 3}, logits), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 99}, logits).size(), 5U);
}

TEST(Sampler, TopKChoosesTheLikeliestWhateverTheTemperature) {
  const std::vector<float> logits = {1, 3, 2, -INFINITY, 0};
  for (const double temperature : {1e-300, 1e-6, 1.0, 1e6, 1e39, 1e300}) {
    SCOPED_TRACE(temperature);
    EXPECT_EQ(support({.temperature = temperature, .top_k = 1}, logits), (std::set<int32_t>{1}));
  }
  EXPECT_EQ(support({.temperature = 1e300, .top_k = 2}, logits), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(support({.temperature = 1e300}, logits), (std::set<int32_t>{0, 1, 2, 4}));
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  const std::vector<float> logits = logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_EQ(support({.temperature = 1, .top_p = 0}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.45}, logits), (std::set<int32_t>{1}));
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.6}, logits), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.8}, logits), (std::set<int32_t>{1, 2, 3}));
}

TEST(Sampler, MinPIsRelativeToTheMostLikely) {
  const std::vector<float> logits = logs({0.1, 0.5, 0.15, 0.25});
  EXPECT_EQ(support({.temperature = 1, .min_p = 0.45}, logits), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(support({.temperature = 1, .min_p = 1}, logits), (std::set<int32_t>{1}));
}

TEST(Sampler, RepetitionIsPenalisedOncePerToken) {
  Sampler sampler({.repetition_penalty = 2});
  const std::vector<float> logits = {4, 3, -1};
  const std::vector<int32_t> once = {0, -5, 99};  // ids out of range are ignored
  const std::vector<int32_t> often = {0, 0, 1, 1, 1};
  EXPECT_EQ(sampler.sample(logits, {}), 0);
  EXPECT_EQ(sampler.sample(logits, once), 1);
  EXPECT_EQ(sampler.sample(logits, often), 0);  // 2 and 1.5
  // A negative score is multiplied.
  EXPECT_EQ(sampler.sample(std::vector<float>{-1, -1.5F}, once), 1);
}

TEST(Sampler, InfiniteLogitsAreDrawable) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(support({.temperature = 1}, {0, infinity, 3}), (std::set<int32_t>{1}));
  EXPECT_EQ(support({.temperature = 1}, {-infinity, 2, -infinity}), (std::set<int32_t>{1}));
}

}  // namespace
}  // namespace airllm::sampling

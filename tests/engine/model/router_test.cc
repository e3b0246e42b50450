#include "engine/model/router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace airllm::model {
namespace {

std::vector<ExpertChoice> choose(const Router& router, const std::vector<float>& logits,
                                 const std::vector<float>& bias = {}) {
  RouterMemory memory;
  choose_experts(router, logits, bias, memory);
  return memory.choices;
}

Router router_of(uint64_t experts, uint64_t chosen) {
  Router router;
  router.experts = experts;
  router.chosen = chosen;
  return router;
}

void expect_choices(const std::vector<ExpertChoice>& found,
                    const std::vector<std::pair<uint32_t, double>>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].expert, expected[i].first);
    EXPECT_NEAR(found[i].weight, expected[i].second, 1e-6);
  }
}

double softmax(const std::vector<float>& logits, size_t which) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  return std::exp(static_cast<double>(logits[which])) / sum;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const std::vector<float> kLogits = {0.5F, 2, -1, 1.5F, 0, 1};

TEST(ChooseExperts, TakesTheLikeliestByTheirNumbers) {
  expect_choices(choose(router_of(6, 2), kLogits),
                 {{1, softmax(kLogits, 1)}, {3, softmax(kLogits, 3)}});
  expect_choices(choose(router_of(6, 1), kLogits), {{1, softmax(kLogits, 1)}});
}

TEST(ChooseExperts, OfEqualsTheFirst) {
  expect_choices(choose(router_of(4, 2), {1, 1, 1, 1}), {{0, 0.25}, {1, 0.25}});
}

TEST(ChooseExperts, WeightsMayBeDividedAndScaled) {
  Router router = router_of(6, 2);
  router.normalizes = true;
  router.scale = 2;
  const double first = std::exp(2.0), second = std::exp(1.5);
  expect_choices(choose(router, kLogits),
                 {{1, 2 * first / (first + second)}, {3, 2 * second / (first + second)}});
  router.norm_power = 2;
  const double norm = std::hypot(first, second);
  expect_choices(choose(router, kLogits), {{1, 2 * first / norm}, {3, 2 * second / norm}});
}

TEST(ChooseExperts, ABiasChoosesAndDoesNotWeigh) {
  Router router = router_of(6, 2);
  router.score = Router::Score::kSigmoid;
  router.has_bias = true;
  expect_choices(choose(router, kLogits, {0, 0, 9, 0, 0, 0}), {{1, sigmoid(2)}, {2, sigmoid(-1)}});
}

TEST(ChooseExperts, OnlyFromTheBestGroups) {
  Router router = router_of(6, 2);
  router.groups = 3;
  router.chosen_groups = 1;
  // Of (0.5, 2), (-1, 1.5) and (0, 1) the first has the best.
  expect_choices(choose(router, kLogits), {{0, softmax(kLogits, 0)}, {1, softmax(kLogits, 1)}});
  router.score = Router::Score::kSigmoid;
  router.group_score = Router::GroupScore::kTwoBest;
  // (1.4, 1.5) together are more than (-9, 2).
  expect_choices(choose(router, {-9, 2, 1.4F, 1.5F, 0, 0}),
                 {{2, sigmoid(1.4F)}, {3, sigmoid(1.5)}});
}

// By hand, after transformers' sparsemixer: near is (best - x) / max(|x|, best) <= 2 * 0.1.
TEST(ChooseExperts, TheSparseMixerLooksAtWhatIsNear) {
  Router router = router_of(4, 2);
  router.score = Router::Score::kSparseMixer;
  router.nearness = 0.1;
  // Near 10: itself and 9. Then the best of the others is 9, and 7.5 is near it.
  const double first = 1 / (1 + std::exp(-1.0));
  const double second = 1 / (1 + std::exp(-1.5));
  expect_choices(choose(router, {9, 10, 7.5F, 1}), {{0, second}, {1, first}});
}

// No expert twice: rows that chose one have a place each.
TEST(ChooseExperts, WhatIsNoNumberStillChoosesEachOnce) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto score :
       {Router::Score::kSoftmax, Router::Score::kSigmoid, Router::Score::kSparseMixer}) {
    for (const float odd : {nan, infinity, -infinity}) {
      Router router = router_of(6, 4);
      router.score = score;
      router.groups = 3;
      router.chosen_groups = 2;
      const std::vector<ExpertChoice> found = choose(router, {odd, odd, odd, 1, odd, odd});
      ASSERT_EQ(found.size(), 4U);
      for (size_t i = 1; i < found.size(); ++i) EXPECT_LT(found[i - 1].expert, found[i].expert);
    }
  }
}

}  // namespace
}  // namespace airllm::model

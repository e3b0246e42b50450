#include "engine/model/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.h"

namespace airllm::model {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void softmax(std::vector<float>& numbers) {
  const float max = *std::max_element(numbers.begin(), numbers.end());
  float sum = 0;
  for (float& number : numbers) {
    number = std::exp(number - max);
    sum += number;
  }
  for (float& number : numbers) number /= sum;
}

// Takes the best one after the other, the first of equals, and none twice, even if the scores are
// no numbers.
class Taker {
 public:
  // Borrows both; nothing is taken yet.
  Taker(const std::vector<float>& scores, std::vector<bool>& taken)
      : scores_(scores), taken_(taken) {
    taken_.assign(scores_.size(), false);
  }

  const std::vector<float>& scores() const { return scores_; }

  size_t take() {
    std::optional<size_t> best;
    for (size_t i = 0; i < scores_.size(); ++i) {
      if (!taken_[i] && (!best || scores_[i] > scores_[*best])) best = i;
    }
    AIRLLM_CHECK(best.has_value());
    taken_[*best] = true;
    return *best;
  }
  bool is_taken(size_t i) const { return taken_[i]; }

 private:
  const std::vector<float>& scores_;
  std::vector<bool>& taken_;
};

float group_score(const Router& router, std::span<const float> scores) {
  float best = kNever, second = kNever;
  for (const float score : scores) {
    if (score > best) {
      second = std::exchange(best, score);
    } else {
      second = std::max(second, score);
    }
  }
  if (router.group_score == Router::GroupScore::kBest) return best;
  return best + second;
}

// Leaves only the experts of the best groups.
void keep_best_groups(const Router& router, RouterMemory& memory) {
  std::vector<float>& scores = memory.biased;
  const size_t size = scores.size() / router.groups;
  memory.groups.clear();
  for (size_t g = 0; g < router.groups; ++g) {
    memory.groups.push_back(group_score(router, std::span(scores).subspan(g * size, size)));
  }
  Taker groups(memory.groups, memory.taken_groups);
  for (size_t i = 0; i < router.chosen_groups; ++i) groups.take();
  for (size_t e = 0; e < scores.size(); ++e) {
    if (!groups.is_taken(e / size)) scores[e] = kNever;
  }
}

// The best of those that are left, with its weight among those that are near it, as transformers'
// sparsemixer has it (in use, not in training).
ExpertChoice mix_sparsely(const Router& router, Taker& left, std::vector<float>& near) {
  near = left.scores();
  for (size_t e = 0; e < near.size(); ++e) {
    if (left.is_taken(e)) near[e] = kNever;
  }
  const size_t best = left.take();
  const float top = left.scores()[best];
  for (size_t e = 0; e < near.size(); ++e) {
    const float logit = left.scores()[e];
    const float size = std::max(std::fabs(logit), top);
    if ((top - logit) / size > static_cast<float>(2 * router.nearness)) near[e] = kNever;
  }
  softmax(near);
  return {static_cast<uint32_t>(best), near[best]};
}

void normalize(const Router& router, std::vector<ExpertChoice>& choices) {
  float sum = 0;
  for (const ExpertChoice& choice : choices) {
    sum += router.norm_power == 1 ? choice.weight
                                  : std::pow(choice.weight, static_cast<float>(router.norm_power));
  }
  if (router.norm_power != 1) sum = std::pow(sum, 1 / static_cast<float>(router.norm_power));
  constexpr float kLeast = 1e-20F;  // of scores that are all 0
  for (ExpertChoice& choice : choices) choice.weight /= std::max(sum, kLeast);
}

}  // namespace

void choose_experts(const Router& router, std::span<const float> logits,
                    std::span<const float> bias, RouterMemory& memory) {
  AIRLLM_CHECK(logits.size() == router.experts && router.chosen <= router.experts);
  std::vector<ExpertChoice>& choices = memory.choices;
  choices.clear();
  std::vector<float>& scores = memory.scores;
  scores.assign(logits.begin(), logits.end());
  if (router.score == Router::Score::kSparseMixer) {
    Taker left(scores, memory.taken);
    for (size_t i = 0; i < router.chosen; ++i) {
      choices.push_back(mix_sparsely(router, left, memory.near));
    }
  } else {
    if (router.score == Router::Score::kSigmoid) {
      for (float& score : scores) score = 1 / (1 + std::exp(-score));
    } else {
      softmax(scores);
    }
    memory.biased = scores;
    for (size_t e = 0; e < bias.size(); ++e) memory.biased[e] += bias[e];
    if (router.groups > 1) keep_best_groups(router, memory);
    Taker left(memory.biased, memory.taken);
    for (size_t i = 0; i < router.chosen; ++i) {
      const size_t best = left.take();
      choices.push_back({static_cast<uint32_t>(best), scores[best]});
    }
  }
  if (router.normalizes) normalize(router, choices);
  for (ExpertChoice& choice : choices) choice.weight *= static_cast<float>(router.scale);
  std::sort(choices.begin(), choices.end(),
            [](const ExpertChoice& a, const ExpertChoice& b) { return a.expert < b.expert; });
}

}  // namespace airllm::model

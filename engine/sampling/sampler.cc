#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace airllm::sampling {
namespace {

using Candidate = std::pair<float, int32_t>;

// Descending by score; equal scores by ascending id, so that ties never depend on the library.
bool comes_before(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}
// For std heaps, whose top is the largest element.
bool heap_less(const Candidate& a, const Candidate& b) { return comes_before(b, a); }

float score_of(float logit) {
  return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
}

int32_t greedy(const std::vector<Candidate>& candidates) {
  return std::min_element(candidates.begin(), candidates.end(), comes_before)->second;
}

void penalise_repetition(std::vector<Candidate>& candidates, std::span<const float> logits,
                         std::span<const int32_t> history, double repetition_penalty) {
  const auto penalty = static_cast<float>(repetition_penalty);
  for (const int32_t id : history) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    // Derived from the unchanged logit, so a token that occurs twice is penalised once.
    const float score = score_of(logits[static_cast<size_t>(id)]);
    candidates[static_cast<size_t>(id)].first = score < 0 ? score * penalty : score / penalty;
  }
}

// Keeps the `count` best, in order of id; among equals the lower ids. `sorted` is scratch.
void keep_top_k(std::vector<Candidate>& candidates, size_t count, std::vector<Candidate>& sorted) {
  if (count >= candidates.size()) return;
  sorted = candidates;
  const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(sorted.begin(), last, sorted.end(), comes_before);
  std::erase_if(candidates, [&](const Candidate& c) { return comes_before(*last, c); });
}

// The candidates by descending probability, sorted only as far as they are asked for: with a
// vocabulary of 128 thousand a draw usually ends after a few.
class Distribution {
 public:
  explicit Distribution(std::vector<Candidate>& candidates)
      : heap_(candidates), heap_end_(candidates.size()) {
    largest_ = std::max_element(heap_.begin(), heap_.end(), heap_less)->first;
    for (const Candidate& candidate : heap_) total_ += weight(candidate);
    std::make_heap(heap_.begin(), heap_.end(), heap_less);
  }

  // Probability times total(); 1 for the most likely.
  double weight(const Candidate& candidate) const {
    if (candidate.first == largest_) return 1;
    return std::exp(static_cast<double>(candidate.first) - static_cast<double>(largest_));
  }
  double total() const { return total_; }
  size_t size() const { return heap_.size(); }
  // The candidate at `rank` in descending order.
  const Candidate& at(size_t rank) {
    while (heap_.size() - heap_end_ <= rank) {
      std::pop_heap(heap_.begin(), heap_.begin() + static_cast<std::ptrdiff_t>(heap_end_),
                    heap_less);
      --heap_end_;
    }
    return heap_[heap_.size() - 1 - rank];
  }

 private:
  std::vector<Candidate>& heap_;  // [0, heap_end_) is the heap; behind it the sorted ones, reversed
  size_t heap_end_;
  float largest_ = 0;
  double total_ = 0;
};

// What of the sorted candidates may be drawn: `count` of them, whose weights sum to `total`.
struct Kept {
  size_t count;
  double total;
};

Kept keep_top_p(Distribution& distribution, double top_p) {
  if (top_p >= 1) return {distribution.size(), distribution.total()};
  const double bound = top_p * distribution.total();
  Kept kept{1, distribution.weight(distribution.at(0))};
  while (kept.count < distribution.size() && kept.total < bound) {
    kept.total += distribution.weight(distribution.at(kept.count));
    ++kept.count;
  }
  return kept;
}

Kept keep_min_p(Distribution& distribution, Kept kept, double min_p) {
  if (min_p <= 0) return kept;
  Kept result{1, distribution.weight(distribution.at(0))};
  while (result.count < kept.count) {
    const double weight = distribution.weight(distribution.at(result.count));
    if (weight < min_p) break;
    result.total += weight;
    ++result.count;
  }
  return result;
}

}  // namespace

Sampler::Sampler(const SamplerSettings& settings) : settings_(settings), random_(settings.seed) {}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history) {
  AIRLLM_CHECK(!logits.empty());
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_[i] = {score_of(logits[i]), static_cast<int32_t>(i)};
  }
  if (settings_.repetition_penalty != 1) {
    penalise_repetition(candidates_, logits, history, settings_.repetition_penalty);
  }
  if (settings_.temperature <= 0) return greedy(candidates_);

  // Before the temperature, a large one of which makes all scores equal.
  if (settings_.top_k > 0) keep_top_k(candidates_, static_cast<size_t>(settings_.top_k), sorted_);
  // Infinite, it would make NaN of a logit that is.
  constexpr double kMaxTemperature = std::numeric_limits<float>::max();
  const auto temperature = static_cast<float>(std::min(settings_.temperature, kMaxTemperature));
  // A temperature that rounds to 0 has the same limit as a small one: greedy.
  if (temperature <= 0) return greedy(candidates_);
  for (Candidate& candidate : candidates_) candidate.first /= temperature;

  Distribution distribution(candidates_);
  const Kept kept =
      keep_min_p(distribution, keep_top_p(distribution, settings_.top_p), settings_.min_p);
  // 53 random bits: every double in [0, 1) that has that many.
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double left = uniform * kept.total;
  size_t rank = 0;
  for (; rank + 1 < kept.count; ++rank) {
    left -= distribution.weight(distribution.at(rank));
    if (left < 0) break;
  }
  return distribution.at(rank).second;
}

}  // namespace airllm::sampling

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/sampling/sampler.h"

namespace airllm::sampling {
namespace {

// ln of the sum of e^(logit - largest). Terms are at most 1, so that nothing overflows.
double log_sum_exp(std::span<const float> logits, double largest) {
  double sum = 0;
  for (const float logit : logits) {
    if (!std::isnan(logit)) sum += std::exp(static_cast<double>(logit) - largest);
  }
  return std::log(sum);
}

}  // namespace

std::vector<std::pair<int32_t, double>> top_logprobs(std::span<const float> logits, size_t count) {
  // Not a number sorts below everything, so that the order stays strict.
  const auto value = [&](int32_t id) {
    const float logit = logits[static_cast<size_t>(id)];
    return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
  };
  const auto before = [&](int32_t a, int32_t b) {
    return value(a) != value(b) ? value(a) > value(b) : a < b;
  };
  count = std::min(count, logits.size());
  // A heap of the best `count` so far, with the worst of them on top.
  std::vector<int32_t> best;
  best.reserve(count);
  for (size_t i = 0; i < logits.size() && count > 0; ++i) {
    const auto id = static_cast<int32_t>(i);
    if (best.size() < count) {
      best.push_back(id);
      std::push_heap(best.begin(), best.end(), before);
    } else if (before(id, best.front())) {
      std::pop_heap(best.begin(), best.end(), before);
      best.back() = id;
      std::push_heap(best.begin(), best.end(), before);
    }
  }
  std::sort_heap(best.begin(), best.end(), before);

  std::vector<std::pair<int32_t, double>> result;
  result.reserve(best.size());
  if (best.empty()) return result;
  const double largest = value(best.front());
  const bool infinite = std::isinf(largest);
  const double normaliser = infinite ? 0 : log_sum_exp(logits, largest);
  for (const int32_t id : best) {
    // Those that equal an infinite largest share everything; the log of nothing is -inf.
    const double distance = value(id) == largest ? 0 : value(id) - largest;
    result.emplace_back(id, distance - normaliser);
  }
  return result;
}

}  // namespace airllm::sampling

#include "engine/stream/expert_cache.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace airllm::stream {
namespace {

// How much of a mean each sweep renews: the last sweep alone, some six of them, some seventy.
constexpr std::array<double, 3> kRates{1, 0.15, 0.015};
// What the means weigh before anything is learned.
constexpr std::array<double, 3> kFirstWeights{0.1, 0.35, 0.55};
constexpr double kLearningRate = 0.03;
// Before so many sweeps the means say nothing to learn from.
constexpr uint64_t kLeastSweeps = 3;
// Chances of nearly nothing are all the same.
constexpr double kLeastChance = 1e-4;

}  // namespace

ExpertCache::ExpertCache(ExpertCacheShape shape)
    : shape_(std::move(shape)),
      uses_(shape_.layer_of.size()),
      weights_(kFirstWeights),
      slot_of_(shape_.layer_of.size(), kNone) {
  AIRLLM_CHECK(shape_.class_of.size() == shape_.layer_of.size());
  for (uint32_t expert = 0; expert < shape_.layer_of.size(); ++expert) {
    const uint32_t layer = shape_.layer_of[expert];
    AIRLLM_CHECK(layer + 1 == layers_.size() || layer == layers_.size());
    AIRLLM_CHECK(shape_.class_of[expert] < shape_.slots.size());
    if (layer == layers_.size()) layers_.push_back({.begin = expert, .end = expert});
    layers_.back().end = expert + 1;
  }
  uint32_t slots = 0;
  for (const uint32_t count : shape_.slots) {
    first_slot_.push_back(slots);
    slots += count;
  }
  expert_in_.assign(slots, kNone);
}

std::vector<ExpertCache::Placed> ExpertCache::choose(uint32_t layer, const std::vector<bool>& used,
                                                     std::span<const uint32_t> busy) {
  Layer& chosen = layers_[layer];
  AIRLLM_CHECK(used.size() == chosen.end - chosen.begin);
  learn(chosen, used);
  observe(chosen, used);

  std::vector<bool> stays(uses_.size());
  for (const uint32_t expert : busy) stays[expert] = true;
  std::vector<std::vector<uint32_t>> missing(shape_.slots.size());
  for (uint32_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    const uint32_t expert = chosen.begin + i;
    stays[expert] = true;
    if (slot_of_[expert] == kNone) missing[shape_.class_of[expert]].push_back(expert);
  }
  std::vector<Placed> out;
  for (uint32_t c = 0; c < missing.size(); ++c) {
    const std::vector<Placed> placed = place(c, missing[c], layer, stays);
    out.insert(out.end(), placed.begin(), placed.end());
  }
  std::sort(out.begin(), out.end(),
            [](const Placed& a, const Placed& b) { return a.expert < b.expert; });
  return out;
}

// What the means would have said of this sweep, against what it is.
void ExpertCache::learn(Layer& layer, const std::vector<bool>& used) {
  const auto count = static_cast<size_t>(std::count(used.begin(), used.end(), true));
  if (layer.sweeps < kLeastSweeps || count == 0 || 2 * count > used.size()) return;
  std::array<double, kTimes> gradient{};
  double norm = 0;
  for (uint32_t i = 0; i < used.size(); ++i) {
    const Use& use = uses_[layer.begin + i];
    const double error = (used[i] ? 1.0 : 0.0) - chance(use);
    for (size_t t = 0; t < kTimes; ++t) {
      gradient[t] += error * use.mean[t];
      norm += use.mean[t] * use.mean[t];
    }
  }
  if (norm == 0) return;
  for (size_t t = 0; t < kTimes; ++t) weights_[t] += kLearningRate * gradient[t] / norm;
}

void ExpertCache::observe(Layer& layer, const std::vector<bool>& used) {
  ++layer.sweeps;
  const auto experts = static_cast<double>(used.size());
  const auto count = static_cast<double>(std::count(used.begin(), used.end(), true));
  const double tells = 1 - count / experts;  // nothing where all are used
  for (uint32_t i = 0; i < used.size(); ++i) {
    Use& use = uses_[layer.begin + i];
    for (size_t t = 0; t < kTimes; ++t) {
      // The first sweeps count alike.
      const double rate = std::max(kRates[t], 1 / static_cast<double>(layer.sweeps + 1));
      use.mean[t] += tells * rate * ((used[i] ? 1.0 : 0.0) - use.mean[t]);
    }
    use.wait = 1 / chance(use) - 1;
  }
}

double ExpertCache::chance(const Use& use) const {
  const double sum = std::inner_product(weights_.begin(), weights_.end(), use.mean.begin(), 0.0);
  return std::clamp(sum, kLeastChance, 1.0);
}

double ExpertCache::expected_wait(uint32_t expert, uint32_t now) const {
  const auto layers = static_cast<uint32_t>(layers_.size());
  const uint32_t ahead = (shape_.layer_of[expert] + layers - now - 1) % layers + 1;
  return uses_[expert].wait + static_cast<double>(ahead) / static_cast<double>(layers);
}

// Free slots go to whom waits least; then each takes the slot of whoever waits longest, if longer.
std::vector<ExpertCache::Placed> ExpertCache::place(uint32_t slot_class,
                                                    std::span<const uint32_t> missing, uint32_t now,
                                                    const std::vector<bool>& stays) {
  struct Slot {
    double wait;
    uint32_t slot;
  };
  std::vector<Placed> out;
  if (missing.empty()) return out;
  constexpr double kFree = 1e300;
  std::vector<Slot> slots;
  const uint32_t end = first_slot_[slot_class] + shape_.slots[slot_class];
  for (uint32_t slot = first_slot_[slot_class]; slot < end; ++slot) {
    const uint32_t expert = expert_in_[slot];
    if (expert == kNone) {
      slots.push_back({kFree, slot});
    } else if (!stays[expert]) {
      slots.push_back({expected_wait(expert, now), slot});
    }
  }
  const size_t wanted = std::min(missing.size(), slots.size());
  std::partial_sort(slots.begin(), slots.begin() + static_cast<std::ptrdiff_t>(wanted), slots.end(),
                    [](const Slot& a, const Slot& b) {
                      return std::tuple(-a.wait, a.slot) < std::tuple(-b.wait, b.slot);
                    });
  std::vector<uint32_t> by_wait(missing.begin(), missing.end());
  std::stable_sort(by_wait.begin(), by_wait.end(), [&](uint32_t a, uint32_t b) {
    return uses_[a].wait < uses_[b].wait;  // of one layer
  });
  for (size_t i = 0; i < wanted && expected_wait(by_wait[i], now) < slots[i].wait; ++i) {
    const uint32_t slot = slots[i].slot;
    const uint32_t evicted = std::exchange(expert_in_[slot], by_wait[i]);
    if (evicted != kNone) slot_of_[evicted] = kNone;
    slot_of_[by_wait[i]] = slot;
    out.push_back({by_wait[i], slot, evicted});
  }
  return out;
}

}  // namespace airllm::stream

// From logits to the next token.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace airllm::sampling {

struct SamplerSettings {
  double temperature = 0;  // 0: greedy, the lowest id among equals
  int64_t top_k = 0;       // 0: off
  double top_p = 1;        // 1: off
  double min_p = 0;        // 0: off
  double repetition_penalty = 1;
  uint64_t seed = 0;
};

// One job's sampler: the same settings, logits and history give the same tokens on every machine.
// Order as in transformers: repetition penalty (arXiv 1909.05858, over prompt and answer),
// temperature, top-k, top-p (arXiv 1904.09751), min-p (arXiv 2407.01082). Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplerSettings& settings);

  // The next token. `logits` [vocabulary] is not changed; `history` is all tokens so far.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history);

 private:
  int32_t draw();

  SamplerSettings settings_;
  std::mt19937_64 random_;
  std::vector<std::pair<float, int32_t>> candidates_;
  std::vector<std::pair<float, int32_t>> sorted_;
};

// The `count` most likely tokens with the natural log-softmax of `logits`, descending (ties: lowest
// id first). Sums in double.
std::vector<std::pair<int32_t, double>> top_logprobs(std::span<const float> logits, size_t count);

}  // namespace airllm::sampling

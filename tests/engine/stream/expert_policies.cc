// Prints what share of the hits of an optimal cache each policy has on the recorded traces.
//
//   expert_policies [FOLDER]
#include <cmath>
#include <cstdio>
#include <random>

#include "tests/engine/stream/routing_trace.h"

namespace airllm::testing {
namespace {

constexpr uint32_t kWindow = 32;

// Each sweep draws `top` experts of each layer, whatever was before, with weights that fall by
// Zipf's law. Where nothing is to be learned but the weights, no policy does better than keeping
// the likeliest.
RoutingTrace drawn_trace(const char* name, uint32_t layers, uint32_t experts, uint32_t top,
                         double zipf) {
  constexpr size_t kSweeps = 600;
  std::mt19937 random(1);
  RoutingTrace trace;
  trace.name = name;
  trace.layers = layers;
  trace.experts = experts;
  for (size_t s = 0; s < kSweeps; ++s) {
    auto& sweep = trace.sweeps.emplace_back();
    for (uint32_t layer = 0; layer < layers; ++layer) {
      std::vector<double> weights;
      for (uint32_t e = 0; e < experts; ++e) weights.push_back(std::pow(e + 1, -zipf));
      auto& used = sweep.emplace_back(experts);
      for (uint32_t k = 0; k < top; ++k) {
        std::discrete_distribution<uint32_t> draw(weights.begin(), weights.end());
        const uint32_t expert = draw(random);
        used[expert] = true;
        weights[expert] = 0;
      }
    }
  }
  return trace;
}

void print(const RoutingTrace& trace) {
  for (const uint32_t quarters : {1U, 2U, 3U}) {
    const uint32_t slots = trace.layers * trace.experts * quarters / 4;
    const auto best = static_cast<double>(belady_hits(trace, slots));
    const auto share = [&](uint64_t hits) { return static_cast<double>(hits) / best; };
    std::printf("| %s | %u/4 | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f |\n", trace.name.c_str(),
                quarters, best / static_cast<double>(trace.uses()), share(cache_hits(trace, slots)),
                share(lru_hits(trace, slots)), share(lfu_hits(trace, slots)),
                share(static_hits(trace, slots)), share(forecast_hits(trace, slots, kWindow)));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace airllm::testing

int main(int argc, char** argv) {
  using namespace airllm::testing;
  std::puts("| trace | experts kept | Belady's hit rate | ours | LRU | LFU | static | forecast |");
  std::puts("|---|---|---|---|---|---|---|---|");
  for (const RoutingTrace& trace : load_traces(argc > 1 ? argv[1] : AIRLLM_TRACES)) print(trace);
  print(drawn_trace("drawn, 2 of 8 alike", 8, 8, 2, 0));
  print(drawn_trace("drawn, 8 of 64 by Zipf 0.65", 4, 64, 8, 0.65));
  return 0;
}

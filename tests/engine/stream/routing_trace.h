// Recorded traces of which experts sweeps used (tools/routing_traces), and what caches make of
// them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace airllm::testing {

struct RoutingTrace {
  std::string name;
  std::string what;   // from its head
  std::string model;  // likewise
  uint32_t layers = 0;
  uint32_t experts = 0;  // of each layer
  // [sweeps][layers][experts]
  std::vector<std::vector<std::vector<bool>>> sweeps;

  uint64_t uses() const;
};

// All *.txt in `folder`, in the order of their names.
std::vector<RoutingTrace> load_traces(const std::string& folder);

// How many uses find their expert in one of `slots` slots, which any expert may have. A sweep that
// uses an expert need not keep it.
uint64_t cache_hits(const RoutingTrace& trace, uint32_t slots);  // of stream::ExpertCache
// Drops what is used again last: no policy has more hits.
uint64_t belady_hits(const RoutingTrace& trace, uint32_t slots);
uint64_t lru_hits(const RoutingTrace& trace, uint32_t slots);
uint64_t lfu_hits(const RoutingTrace& trace, uint32_t slots);
// The experts that the whole trace uses most, chosen beforehand.
uint64_t static_hits(const RoutingTrace& trace, uint32_t slots);
// Knows how often each expert is used in the next `window` sweeps, but not in which.
uint64_t forecast_hits(const RoutingTrace& trace, uint32_t slots, uint32_t window);

}  // namespace airllm::testing

#include "tests/engine/stream/routing_trace.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <sstream>
#include <string_view>
#include <tuple>

#include "base/check.h"
#include "base/json.h"
#include "engine/stream/expert_cache.h"

namespace airllm::testing {
namespace {

constexpr std::string_view kAlphabet =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

RoutingTrace load_trace(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  AIRLLM_CHECK(std::getline(file, line));
  const Json head = parse_json(line, "trace").value();
  RoutingTrace trace;
  trace.name = path.stem();
  trace.what = head["what"].get<std::string>();
  trace.model = head["model"].get<std::string>();
  trace.layers = head["layers"].get<uint32_t>();
  trace.experts = head["experts"].get<uint32_t>();
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string word;
    auto& sweep = trace.sweeps.emplace_back();
    while (words >> word) {
      auto& used = sweep.emplace_back(trace.experts);
      for (const char letter : word) used.at(kAlphabet.find(letter)) = true;
    }
    AIRLLM_CHECK(sweep.size() == trace.layers);
  }
  return trace;
}

// A layer of a sweep: which of all experts it uses.
struct Request {
  uint32_t layer;
  std::vector<uint32_t> experts;
};

std::vector<Request> requests_of(const RoutingTrace& trace) {
  std::vector<Request> requests;
  for (const auto& sweep : trace.sweeps) {
    for (uint32_t layer = 0; layer < trace.layers; ++layer) {
      Request& request = requests.emplace_back(Request{layer, {}});
      for (uint32_t e = 0; e < trace.experts; ++e) {
        if (sweep[layer][e]) request.experts.push_back(layer * trace.experts + e);
      }
    }
  }
  return requests;
}

// After each request, those experts of what was kept and what was used stay that `wait` is least
// of: wait(expert, number of the request).
uint64_t hits_by(const std::vector<Request>& requests, uint32_t slots,
                 const std::function<void(const Request&, size_t)>& observe,
                 const std::function<double(uint32_t, size_t)>& wait) {
  std::vector<uint32_t> kept;
  uint64_t hits = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    observe(requests[i], i);
    for (const uint32_t expert : requests[i].experts) {
      if (std::find(kept.begin(), kept.end(), expert) != kept.end()) {
        ++hits;
      } else {
        kept.push_back(expert);
      }
    }
    if (kept.size() <= slots) continue;
    std::vector<std::tuple<double, uint32_t>> order;
    order.reserve(kept.size());
    for (const uint32_t expert : kept) order.emplace_back(wait(expert, i), expert);
    std::nth_element(order.begin(), order.begin() + slots, order.end());
    kept.clear();
    for (uint32_t k = 0; k < slots; ++k) kept.push_back(std::get<uint32_t>(order[k]));
  }
  return hits;
}

uint32_t all_experts(const RoutingTrace& trace) { return trace.layers * trace.experts; }

}  // namespace

uint64_t RoutingTrace::uses() const {
  uint64_t sum = 0;
  for (const auto& sweep : sweeps) {
    for (const auto& used : sweep) {
      sum += static_cast<uint64_t>(std::count(used.begin(), used.end(), true));
    }
  }
  return sum;
}

std::vector<RoutingTrace> load_traces(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<RoutingTrace> traces;
  for (const auto& path : paths) traces.push_back(load_trace(path));
  return traces;
}

uint64_t cache_hits(const RoutingTrace& trace, uint32_t slots) {
  stream::ExpertCacheShape shape;
  for (uint32_t e = 0; e < all_experts(trace); ++e) shape.layer_of.push_back(e / trace.experts);
  shape.class_of.assign(all_experts(trace), 0);
  shape.slots = {slots};
  stream::ExpertCache cache(shape);
  uint64_t hits = 0;
  for (const auto& sweep : trace.sweeps) {
    for (uint32_t layer = 0; layer < trace.layers; ++layer) {
      for (uint32_t e = 0; e < trace.experts; ++e) {
        const bool is_kept = cache.slot_of(layer * trace.experts + e) != stream::ExpertCache::kNone;
        hits += sweep[layer][e] && is_kept ? 1 : 0;
      }
      cache.choose(layer, sweep[layer]);
    }
  }
  return hits;
}

uint64_t belady_hits(const RoutingTrace& trace, uint32_t slots) {
  const std::vector<Request> requests = requests_of(trace);
  // Of each request's experts, when they are used next.
  std::vector<std::vector<double>> next(requests.size());
  std::vector<double> next_use(all_experts(trace), 1e18);
  for (size_t i = requests.size(); i-- > 0;) {
    for (const uint32_t expert : requests[i].experts) next[i].push_back(next_use[expert]);
    for (const uint32_t expert : requests[i].experts) next_use[expert] = static_cast<double>(i);
  }
  return hits_by(
      requests, slots,
      [&](const Request& request, size_t i) {
        for (size_t k = 0; k < next[i].size(); ++k) next_use[request.experts[k]] = next[i][k];
      },
      [&](uint32_t expert, size_t) { return next_use[expert]; });
}

uint64_t lru_hits(const RoutingTrace& trace, uint32_t slots) {
  std::vector<double> last(all_experts(trace));
  return hits_by(
      requests_of(trace), slots,
      [&](const Request& request, size_t i) {
        for (const uint32_t expert : request.experts) last[expert] = static_cast<double>(i);
      },
      [&](uint32_t expert, size_t) { return -last[expert]; });
}

uint64_t lfu_hits(const RoutingTrace& trace, uint32_t slots) {
  std::vector<double> uses(all_experts(trace));
  return hits_by(
      requests_of(trace), slots,
      [&](const Request& request, size_t) {
        for (const uint32_t expert : request.experts) ++uses[expert];
      },
      [&](uint32_t expert, size_t) { return -uses[expert]; });
}

uint64_t static_hits(const RoutingTrace& trace, uint32_t slots) {
  std::vector<uint64_t> uses(all_experts(trace));
  for (const Request& request : requests_of(trace)) {
    for (const uint32_t expert : request.experts) ++uses[expert];
  }
  std::sort(uses.rbegin(), uses.rend());
  return std::accumulate(uses.begin(), uses.begin() + slots, uint64_t{0});
}

uint64_t forecast_hits(const RoutingTrace& trace, uint32_t slots, uint32_t window) {
  const std::vector<Request> requests = requests_of(trace);
  // [sweeps + 1][experts]: uses before that sweep.
  std::vector<std::vector<double>> before(trace.sweeps.size() + 1,
                                          std::vector<double>(all_experts(trace)));
  for (size_t s = 0; s < trace.sweeps.size(); ++s) {
    before[s + 1] = before[s];
    for (uint32_t e = 0; e < all_experts(trace); ++e) {
      before[s + 1][e] += trace.sweeps[s][e / trace.experts][e % trace.experts] ? 1 : 0;
    }
  }
  return hits_by(
      requests, slots, [](const Request&, size_t) {},
      [&](uint32_t expert, size_t i) {
        const uint32_t layer = expert / trace.experts;
        const size_t now = i % trace.layers;
        const size_t from = i / trace.layers + (layer <= now ? 1 : 0);
        const size_t to = std::min(from + window, trace.sweeps.size());
        const double uses = before[to][expert] - before[from][expert];
        const size_t ahead = (layer + trace.layers - now - 1) % trace.layers + 1;
        const double chance =
            std::max(uses / std::max<double>(1, static_cast<double>(to - from)), 1e-4);
        return 1 / chance - 1 + static_cast<double>(ahead) / trace.layers;
      });
}

}  // namespace airllm::testing

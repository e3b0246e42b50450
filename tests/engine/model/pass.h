// Runs the engine's forward pass over whole sequences, cut as a test wants it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "engine/model/forward.h"
#include "engine/stream/device.h"
#include "engine/stream/weight_stream.h"
#include "tests/engine/stream/memory_model.h"

namespace airllm::testing {

using Logits = std::vector<std::vector<float>>;  // [positions][vocabulary]

struct Setup {
  uint64_t budget = 64 * kMiB;
  unsigned threads = 2;
  const kernels::Backend* backend = &kernels::scalar_backend();
};

class Pass {
 public:
  Pass(const MemoryModel& model, const Setup& setup)
      : model_(model),
        plan_(*stream::make_plan({&model.architecture, model.shards}, setup.budget)),
        slab_(*stream::Slab::create(plan_.slab_bytes)),
        pool_(setup.threads),
        weights_(plan_, model.shards, slab_.memory(), *setup.backend, {}, [] { return Status(); }),
        forward_(model.architecture, *setup.backend, pool_, plan_.limits,
                 slab_.memory().first(plan_.workspace_bytes)),
        kv_(*kv::KvPool::create(model::kv_shape(model.architecture), 16 * kMiB)) {}

  // The logits of every position of each sequence, or of each whose number is a multiple of
  // `every`, computed `chunk` rows of each at a time.
  std::vector<Logits> run(const std::vector<std::vector<int32_t>>& sequences, size_t chunk,
                          size_t every = 1) {
    std::vector<std::unique_ptr<kv::KvSequence>> kv;
    for (size_t s = 0; s < sequences.size(); ++s) {
      kv.push_back(std::make_unique<kv::KvSequence>(*kv_));
    }
    std::vector<Logits> out(sequences.size());
    std::vector<size_t> done(sequences.size());
    const size_t most = std::min(plan_.limits.rows, plan_.limits.logit_rows);
    for (;;) {
      std::vector<model::Row> rows;
      std::vector<size_t> owner;
      for (size_t s = 0; s < sequences.size(); ++s) {
        const size_t first = done[s];
        const size_t count = std::min({chunk, sequences[s].size() - first, most - rows.size()});
        if (count == 0) continue;
        AIRLLM_CHECK(kv[s]->reserve(first + count));
        for (size_t p = first; p < first + count; ++p) {
          rows.push_back({sequences[s][p], static_cast<uint32_t>(p),
                          static_cast<uint32_t>(sequences[s].size()), kv[s].get(), p % every == 0});
          if (p % every == 0) owner.push_back(s);
        }
        done[s] += count;
      }
      if (rows.empty()) return out;
      AIRLLM_CHECK(forward_.run(rows, weights_, [] { return Status(); }).has_value());
      for (size_t i = 0; i < owner.size(); ++i) {
        const std::span<const float> logits = forward_.logits(i);
        out[owner[i]].emplace_back(logits.begin(), logits.end());
      }
    }
  }

  // Decodes `tokens`, one a sweep, and gives how often each took memory.
  std::vector<size_t> allocations(const std::vector<int32_t>& tokens, size_t (*count)()) {
    kv::KvSequence kv(*kv_);
    AIRLLM_CHECK(kv.reserve(tokens.size()));
    const std::function<Status()> between_tiles = [] { return Status(); };
    std::vector<size_t> out;
    for (size_t p = 0; p < tokens.size(); ++p) {
      const model::Row row{tokens[p], static_cast<uint32_t>(p), 0, &kv, true};
      const size_t before = count();
      AIRLLM_CHECK(forward_.run({&row, 1}, weights_, between_tiles).has_value());
      out.push_back(count() - before);
    }
    return out;
  }

 private:
  const MemoryModel& model_;
  stream::Plan plan_;
  stream::Slab slab_;
  kernels::ThreadPool pool_;
  stream::WeightStream weights_;
  model::ForwardPass forward_;
  std::unique_ptr<kv::KvPool> kv_;
};

inline std::vector<int32_t> random_tokens(size_t count, uint32_t seed,
                                          const model::Architecture& a) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(a.vocabulary));
  }
  return tokens;
}

inline std::vector<const kernels::Backend*> backends() {
  std::vector<const kernels::Backend*> all;
  for (const char* name : kernels::kBackendNames) {
    if (const kernels::Backend* backend = kernels::find_backend(name)) all.push_back(backend);
  }
  return all;
}

}  // namespace airllm::testing

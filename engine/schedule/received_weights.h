// What an engine gets from the process before it: weights of models that lie in memory still. What
// is of no use is given back at once, before this process takes memory of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/lasting_weights.h"
#include "engine/store/store.h"

namespace airllm::schedule {

// Used by one thread, while the engine is opened.
class ReceivedWeights {
 public:
  // Takes all from `from`, which may be null: what is whole, of this version, and of a model that
  // is in the store.
  ReceivedWeights(engine::MemoryStore* from, store::Store& store);

  // Of what was received, whether of use or not: free for this process.
  uint64_t allocated_bytes() const { return allocated_bytes_; }
  std::vector<Budgets> former_budgets() const;
  // Gives back what a RAM budget of this process has no room for.
  void fit(uint64_t ram_bytes);
  std::vector<LastingWeights> take() { return std::move(weights_); }

 private:
  void give_back(LastingWeights& weights, const char* why);

  engine::MemoryStore* from_;
  uint64_t allocated_bytes_ = 0;
  std::vector<LastingWeights> weights_;
};

}  // namespace airllm::schedule

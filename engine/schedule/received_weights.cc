#include "engine/schedule/received_weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/log.h"
#include "base/units.h"

namespace airllm::schedule {
namespace {

bool is_in(store::Store& store, const engine::ModelRef& model) {
  const Result<engine::FoundModel> found = store.find(model.name, {model.holder}, false);
  return found && found->model == model;
}

}  // namespace

ReceivedWeights::ReceivedWeights(engine::MemoryStore* from, store::Store& store) : from_(from) {
  if (from == nullptr) return;
  std::vector<engine::MemoryStore::Entry> entries = from->take();
  std::map<std::string, int> times;
  for (const auto& entry : entries) ++times[entry.name];
  std::set<engine::ModelRef> models;
  for (engine::MemoryStore::Entry& entry : entries) {
    const std::string name = entry.name;
    Result<LastingWeights> weights = LastingWeights::receive(std::move(entry));
    if (!weights) {
      log::warning("{}: dropped", weights.error().message);
      from->forget(name);
      continue;
    }
    allocated_bytes_ += weights->allocated_bytes();
    // One of two of a name cannot be given back alone.
    if (times[name] > 1 || !models.insert(weights->info().model).second) {
      give_back(*weights, "there are two");
    } else if (!is_in(store, weights->info().model)) {
      give_back(*weights, "the model is not in the store any more");
    } else {
      weights_.push_back(std::move(*weights));
    }
  }
}

std::vector<Budgets> ReceivedWeights::former_budgets() const {
  std::vector<Budgets> out;
  for (const LastingWeights& weights : weights_) out.push_back(weights.info().defaults);
  return out;
}

void ReceivedWeights::fit(uint64_t ram_bytes) {
  uint64_t left = ram_bytes;
  std::vector<LastingWeights> fitting;
  for (LastingWeights& weights : weights_) {
    if (weights.info().plan_bytes > ram_bytes || weights.bytes() > left) {
      give_back(weights, "the RAM budget is smaller now");
    } else {
      left -= weights.bytes();
      fitting.push_back(std::move(weights));
    }
  }
  weights_ = std::move(fitting);
}

void ReceivedWeights::give_back(LastingWeights& weights, const char* why) {
  log::info("model {}: {} of weights from before the start are given back: {}",
            weights.info().model.name, format_size(weights.allocated_bytes()), why);
  weights.discard();
  from_->forget(weights.name());
}

}  // namespace airllm::schedule

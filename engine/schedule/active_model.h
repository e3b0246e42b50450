// A model that can run: its plan, memory, weight pipeline, forward pass and KV pool.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "base/units.h"
#include "engine/kv/kv_pool.h"
#include "engine/model/forward.h"
#include "engine/schedule/job.h"
#include "engine/schedule/lasting_weights.h"
#include "engine/schedule/loaded_model.h"
#include "engine/stream/arena.h"
#include "engine/stream/device.h"
#include "engine/stream/host_tier.h"
#include "engine/stream/plan.h"
#include "engine/stream/weight_stream.h"

namespace airllm::schedule {

// What a model may take: of the host's memory, of the device's own, and for keys and values, which
// are in the latter where there is one.
struct ModelBudget {
  uint64_t ram_bytes = 0;
  std::optional<uint64_t> vram_bytes;
  uint64_t kv_bytes = 0;

  // Of the device's memory keys and values take no more than a share, in whole pages.
  uint64_t device_kv_bytes() const {
    return round_down(std::min(kv_bytes, *vram_bytes / 4), kPageBytes);
  }
};

// What a model's memory is to hold, and the part of it that may outlast the process.
struct PlannedMemory {
  stream::Plan plan;
  std::optional<stream::HostPlan> host;   // beside a device with memory of its own
  std::optional<LastingWeights> lasting;  // only where there is none
  bool is_adopted = false;                // `lasting` holds what an earlier process has read

  uint64_t ram_bytes() const { return host ? host->memory_bytes : plan.slab_bytes; }
};

// Used by the engine thread. Address-stable: its parts point to each other.
class ActiveModel {
 public:
  // Pages for keys and values, within the budget.
  static Result<std::unique_ptr<kv::KvPool>> make_kv(const LoadedModel& model,
                                                     stream::Device& device,
                                                     const ModelBudget& budget);
  // Within the budget, whose keys and values are no matter here; nothing is taken of it yet.
  // `defaults` as LastingInfo.
  static Result<PlannedMemory> plan_memory(const LoadedModel& model, const ModelBudget& budget,
                                           const Budgets& defaults);
  // The plan by which an earlier process has placed `weights`; kData where there is none now, or
  // not of this model as it is.
  static Result<stream::Plan> plan_of(const LoadedModel& model, const LastingWeights& weights);

  // Takes the memory. Takes `kv` over, with the sequences in it, when it succeeds. `stream_options`
  // and `interrupted` as in WeightStream.
  static Result<std::unique_ptr<ActiveModel>> create(std::shared_ptr<const LoadedModel> model,
                                                     stream::Device& device, PlannedMemory planned,
                                                     std::unique_ptr<kv::KvPool>& kv,
                                                     stream::StreamOptions stream_options,
                                                     std::function<Status()> interrupted);
  // Gives up its keys and values, before stop().
  std::unique_ptr<kv::KvPool> take_kv() { return std::move(kv_); }
  // Ends the reading, and gives all memory back but what reads under way may still write to. True
  // when none is under way after `patience`. Otherwise destroy the model only once is_unused():
  // before, that would wait for the reads. No sequence may be left; nothing else may be called.
  bool stop(std::chrono::milliseconds patience);
  bool is_unused() const { return weights_->readers_are_back(); }

  // What make_kv() and plan_memory() would use at most: of RAM without a limit, or, on a device
  // with memory of its own, of that up to the budget's, and of RAM beside it.
  static ModelBudget full_budget(const LoadedModel& model, const ModelBudget& limits);
  // Gives its memory back to the system, whoever else holds it; after stop() alone.
  void discard_memory() { slab_.discard(slab_.memory()); }

  const std::shared_ptr<const LoadedModel>& model() const { return model_; }
  model::ForwardPass& forward() { return *forward_; }
  stream::WeightStream& weights() { return *weights_; }
  kv::KvPool& kv() { return *kv_; }
  const stream::Plan& plan() const { return planned_.plan; }
  uint64_t ram_bytes() const { return planned_.ram_bytes(); }
  // Of the device's own memory, without keys and values.
  uint64_t vram_bytes() const { return device_memory_.memory().size(); }
  // Null where the device computes in the host's memory.
  const stream::HostPlan* host_plan() const { return planned_.host ? &*planned_.host : nullptr; }
  // Whether a sweep reads from disk.
  bool reads() const;
  const stream::Slab& slab() const { return slab_; }
  // What a MemoryStore holds of it; empty when nothing of it is of use to another process.
  const std::string& lasting_name() const { return lasting_name_; }
  // Whether a whole sweep has been done: the model is loaded.
  bool is_proven() const { return is_proven_; }
  void set_proven() { is_proven_ = true; }
  // The budget was smaller than the setting when it was planned: it may grow with the budget.
  bool is_shrunk() const { return is_shrunk_; }
  void set_shrunk(bool is_shrunk) { is_shrunk_ = is_shrunk; }
  // Whether a plan of so many bytes is worth a try: not twice in a row.
  bool consider(uint64_t ram_bytes) { return std::exchange(considered_, ram_bytes) != ram_bytes; }
  // A job has ended, which may say how long the model keeps its memory from now on.
  void job_ended(Clock::time_point now, std::optional<std::chrono::milliseconds> keep_alive) {
    idle_since_ = now;
    keep_alive_ = keep_alive;
  }
  Clock::time_point idle_since() const { return idle_since_; }
  std::optional<std::chrono::milliseconds> keep_alive() const { return keep_alive_; }
  // A sweep's weights, the head's included.
  uint64_t sweep_bytes() const { return sweep_bytes_; }

 private:
  ActiveModel(std::shared_ptr<const LoadedModel> model, PlannedMemory planned)
      : model_(std::move(model)),
        planned_(std::move(planned)),
        sweep_bytes_(planned_.plan.list.total_bytes()) {}
  void log_loaded() const;

  std::shared_ptr<const LoadedModel> model_;
  PlannedMemory planned_;  // but for `lasting`, which the slab has
  uint64_t sweep_bytes_;
  std::string lasting_name_;
  bool is_proven_ = false;
  bool is_shrunk_ = false;
  uint64_t considered_ = 0;
  Clock::time_point idle_since_ = Clock::now();
  std::optional<std::chrono::milliseconds> keep_alive_;
  stream::Slab slab_;
  stream::ArenaBlock device_memory_;  // for the plan, where the device has memory of its own
  std::unique_ptr<kv::KvPool> kv_;
  std::unique_ptr<stream::WeightStream> weights_;
  std::unique_ptr<model::ForwardPass> forward_;
};

}  // namespace airllm::schedule

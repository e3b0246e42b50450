// A model that can run: its plan, memory, weight pipeline, forward pass and KV pool.
#pragma once

#include <functional>
#include <memory>

#include "engine/kv/kv_pool.h"
#include "engine/model/forward.h"
#include "engine/schedule/loaded_model.h"
#include "engine/stream/device.h"
#include "engine/stream/plan.h"
#include "engine/stream/weight_stream.h"

namespace airllm::schedule {

// Used by the engine thread. Address-stable: its parts point to each other.
class ActiveModel {
 public:
  // Plans within `ram_bytes` and takes that memory. `interrupted` as in WeightStream.
  static Result<std::unique_ptr<ActiveModel>> create(std::shared_ptr<const LoadedModel> model,
                                                     stream::Device& device, uint64_t ram_bytes,
                                                     uint64_t kv_bytes,
                                                     std::function<Status()> interrupted);
  // What create() would use of an unlimited budget.
  static uint64_t full_ram_bytes(const LoadedModel& model);

  const std::shared_ptr<const LoadedModel>& model() const { return model_; }
  model::ForwardPass& forward() { return *forward_; }
  stream::WeightStream& weights() { return *weights_; }
  kv::KvPool& kv() { return *kv_; }
  const stream::Plan& plan() const { return plan_; }
  uint64_t ram_bytes() const { return plan_.slab_bytes; }
  // A sweep's weights, the head's included.
  uint64_t sweep_bytes() const { return sweep_bytes_; }

 private:
  ActiveModel(std::shared_ptr<const LoadedModel> model, stream::Plan plan)
      : model_(std::move(model)), plan_(std::move(plan)), sweep_bytes_(plan_.list.total_bytes()) {}

  std::shared_ptr<const LoadedModel> model_;
  stream::Plan plan_;
  uint64_t sweep_bytes_;
  stream::Slab slab_;
  std::unique_ptr<kv::KvPool> kv_;
  std::unique_ptr<stream::WeightStream> weights_;
  std::unique_ptr<model::ForwardPass> forward_;
};

}  // namespace airllm::schedule

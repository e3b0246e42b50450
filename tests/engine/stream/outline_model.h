// A model of any size without its weights: what a plan is made from.
#pragma once

#include <utility>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/stages.h"
#include "engine/store/shard.h"
#include "engine/store/shard_layout.h"
#include "engine/stream/plan.h"

namespace airllm::testing {

struct OutlineModel {
  model::Architecture architecture;
  std::vector<store::Shard> shards;  // without files

  OutlineModel(model::Architecture a, kernels::NumberFormat format) : architecture(std::move(a)) {
    for (const model::StageSpec& stage : model::stages(architecture)) {
      store::ShardLayout layout = store::layout_shard(
          stage, std::vector<kernels::NumberFormat>(stage.tensors.size(), format));
      store::Shard shard;
      shard.path = stage.shard_name;
      shard.file_bytes = layout.file_bytes;
      shard.tensors = std::move(layout.tensors);
      shards.push_back(std::move(shard));
    }
  }

  stream::PlanInput input() const { return {&architecture, shards}; }
};

}  // namespace airllm::testing

// A model in memory with a plan, its slab and its stream.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "engine/stream/device.h"
#include "engine/stream/plan.h"
#include "engine/stream/weight_stream.h"
#include "tests/engine/stream/memory_model.h"
#include "tests/engine/stream/sweep.h"

namespace airllm::testing {

struct StreamedModel {
  explicit StreamedModel(uint64_t budget, bool tied = true,
                         const stream::StreamOptions& options = {})
      : StreamedModel(tiny_architecture(tied), budget, options) {}
  StreamedModel(const model::Architecture& architecture, uint64_t budget,
                const stream::StreamOptions& options)
      : model(architecture, kernels::NumberFormat::kF32, 7),
        plan(*stream::make_plan({&model.architecture, model.shards}, budget)),
        slab(*stream::Slab::create(plan.slab_bytes)),
        stream(std::in_place, plan, model.shards, slab.memory(), kernels::scalar_backend(), options,
               [this] { return interrupted(); }) {}

  Status interrupted() {
    if (is_interrupted) return Unexpected(ErrorCode::kCancelled, "interrupted");
    return {};
  }

  // Runs a sweep and checks every tile's bytes against the shard's.
  Status sweep(bool with_head) {
    return testing::sweep(*this->stream, plan.list, with_head,
                          [this](size_t i, const model::TileView& view) { check(i, view); });
  }

  void check(size_t i, const model::TileView& view) {
    const stream::Tile& tile = plan.list.tiles[i];
    EXPECT_EQ(view.stage, tile.stage);
    EXPECT_EQ(view.step, tile.step);
    EXPECT_EQ(view.row_begin, tile.row_begin);
    const std::string& content = model.files[tile.shard]->content();
    EXPECT_EQ(0, std::memcmp(view.data, content.data() + tile.data_offset, tile.data_bytes))
        << "tile " << i;
  }

  MemoryModel model;
  stream::Plan plan;
  stream::Slab slab;
  std::atomic<bool> is_interrupted{false};
  std::optional<stream::WeightStream> stream;
};

}  // namespace airllm::testing

// A sweep over a stream, as the pass makes one.
#pragma once

#include <gtest/gtest.h>

#include <variant>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/stages.h"
#include "engine/stream/plan.h"
#include "engine/stream/weight_stream.h"

namespace airllm::testing {

// Calls `check` with the index and the view of each tile, which are to come in the order of `list`.
template <typename Check>
Status sweep(stream::WeightStream& stream, const stream::TileList& list, bool with_head,
             const Check& check) {
  stream.begin_sweep(with_head);
  const size_t end = with_head ? list.tiles.size() : list.head_begin;
  for (size_t i = 0;; ++i) {
    bool done = false;
    AIRLLM_TRY(const model::TileView view, stream.next_tile(done));
    if (done) {
      EXPECT_EQ(i, end);
      return {};
    }
    check(i, view);
    stream.release_tile();
  }
}

// The same with a head, of a model with experts: each layer uses those of `choices` ([layers with
// experts][experts]). `check` is not called for the tiles of others, which are not to come.
template <typename Check>
Status sweep_of_experts(stream::WeightStream& stream, const model::Architecture& architecture,
                        const stream::TileList& list, const std::vector<std::vector<bool>>& choices,
                        const Check& check) {
  const std::vector<model::StageSpec> stages = model::stages(architecture);
  stream.begin_sweep(true);
  size_t index = 0, layer = 0;
  for (;;) {
    bool done = false;
    AIRLLM_TRY(const model::TileView view, stream.next_tile(done));
    if (done) return {};
    while (list.tiles[index].expert && !choices[layer - 1][*list.tiles[index].expert]) ++index;
    check(index++, view);
    stream.release_tile();
    const std::vector<model::Step>& steps = stages[view.stage].steps;
    if (view.is_last && view.step + 1 < steps.size() &&
        std::holds_alternative<model::step::Route>(steps[view.step + 1].what)) {
      stream.choose_experts(choices[layer++]);
    }
  }
}

}  // namespace airllm::testing

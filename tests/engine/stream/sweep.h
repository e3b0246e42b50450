// A sweep over a stream, as the pass makes one.
#pragma once

#include <gtest/gtest.h>

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

}  // namespace airllm::testing

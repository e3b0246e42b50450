// The one forward pass: a batch of rows through all stages of an architecture.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/kv/kv_pool.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"
#include "engine/model/steps.h"
#include "engine/model/weight_source.h"
#include "kernels/backend.h"

namespace airllm::model {

// One token position of one sequence. Rows of a sequence follow each other by position; its KV
// memory is reserved up to the last.
struct Row {
  int32_t token = 0;
  uint32_t position = 0;
  kv::KvSequence* sequence = nullptr;
  bool wants_logits = false;
};

// How large a batch the workspace holds.
struct BatchLimits {
  size_t rows = 1;
  size_t logit_rows = 1;
};

// Used by the engine thread. A row's result does not depend on the other rows.
class ForwardPass {
 public:
  // Bytes of device memory that a batch of this size needs besides weights and KV.
  static uint64_t workspace_bytes(const Architecture& architecture, const BatchLimits& limits);

  // Borrows everything; `workspace` is at least workspace_bytes long, aligned to 64.
  ForwardPass(const Architecture& architecture, const kernels::Backend& backend,
              kernels::ThreadPool& pool, const BatchLimits& limits, std::span<std::byte> workspace);

  const BatchLimits& limits() const { return limits_; }

  // Runs one sweep. `between_tiles` is called after every tile and between the pieces of a long
  // attention, so that no more than a few seconds' work lies between two calls; an error from it
  // ends the sweep.
  Status run(std::span<const Row> rows, WeightSource& weights,
             const std::function<Status()>& between_tiles);

  // The logits of the i-th row that wanted them, in order, of the last run; [vocabulary].
  std::span<const float> logits(size_t i) const;

 private:
  void begin(std::span<const Row> rows);
  Status embed(WeightSource& weights);
  // Runs the steps up to the one that `tile` drives.
  Status advance(const TileView& tile, const std::function<Status()>& between_pieces);
  Status run_step(const Step& step, const std::function<Status()>& between_pieces);
  void run_tile(const Step& step, const TileView& tile);

  void norm(const Step& step, const TileView& tile);
  void product(const Step& step, const TileView& tile);
  void add_bias(const Step& step, const TileView& tile);
  void rotate(Buffer buffer);
  void keep_keys_and_values(size_t layer);
  Status attend(size_t layer, const std::function<Status()>& between_pieces);
  size_t rows_of_piece(size_t first) const;
  void keep_logit_rows(const Step& step);

  float* rows_of(Buffer buffer) const { return buffers_[static_cast<size_t>(buffer)]; }
  uint64_t width(Buffer buffer) const { return buffer_width(architecture_, buffer); }

  const Architecture& architecture_;
  const kernels::Backend& backend_;
  kernels::ThreadPool& pool_;
  BatchLimits limits_;
  std::vector<StageSpec> stages_;
  std::vector<float> inverse_frequencies_;  // [head_dim / 2]

  std::array<float*, kBuffers> buffers_;  // in the workspace

  std::span<const Row> rows_;
  std::vector<uint32_t> positions_;
  std::vector<kernels::AttentionRow> attention_rows_;
  size_t logit_rows_ = 0;
  size_t active_rows_ = 0;  // that the steps work on
  // Where the sweep is: the step that runs next, or whose tiles come in.
  size_t stage_ = 0;
  size_t step_ = 0;
};

}  // namespace airllm::model

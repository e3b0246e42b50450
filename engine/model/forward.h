// The one forward pass: a batch of rows through all stages of an architecture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/kv/kv_pool.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"
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
  Status embed(WeightSource& weights);
  Status begin_layer_tensor(const TileView& tile, const std::function<Status()>& between_pieces);
  Status apply(const TileView& tile, const std::function<Status()>& between_pieces);
  void apply_layer(const TileView& tile);
  void apply_head(const TileView& tile);
  Status attend(size_t layer, const std::function<Status()>& between_pieces);
  size_t rows_of_piece(size_t first) const;
  void gather_logit_rows();
  void matmul(const TileView& tile, const float* x, size_t in, float* y, size_t out_stride,
              size_t rows, bool accumulate);
  void add_bias(const TileView& tile, float* y, size_t width);
  void norm(const TileView& tile, const float* x, float* y, size_t rows);

  const Architecture& architecture_;
  const kernels::Backend& backend_;
  kernels::ThreadPool& pool_;
  BatchLimits limits_;
  std::vector<StageSpec> stages_;
  std::vector<float> inverse_frequencies_;  // [head_dim / 2]

  // In the workspace.
  float* x_;       // [rows, hidden]: the residual stream
  float* h_;       // [rows, hidden]: normalised
  float* q_;       // [rows, q_width]
  float* k_;       // [rows, kv_width]
  float* v_;       // [rows, kv_width]
  float* mixed_;   // [rows, q_width]: attention's output
  float* gate_;    // [rows, intermediate]; shares memory with q, k, v and mixed
  float* up_;      // [rows, intermediate]
  float* logits_;  // [logit_rows, vocabulary]

  std::span<const Row> rows_;
  std::vector<uint32_t> positions_;
  std::vector<kernels::AttentionRow> attention_rows_;
  size_t logit_rows_ = 0;
  Role previous_role_ = Role::kEmbedding;
  size_t previous_stage_ = 0;
};

}  // namespace airllm::model

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
#include "engine/model/memory_access.h"
#include "engine/model/router.h"
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
  // Positions of the whole sequence, which rotary frequencies may depend on; 0: position + 1. What
  // its KV memory holds was computed for a length that are_rotated_alike() with this one.
  uint32_t length = 0;
  kv::KvSequence* sequence = nullptr;
  bool wants_logits = false;
};

// How large a batch the workspace holds.
struct BatchLimits {
  size_t rows = 1;
  size_t logit_rows = 1;
  bool prepares = false;  // there is room for what products with compressed weights take
  size_t outliers = 0;    // the most that a weight has
};

// What the keys and values of its sequences look like.
kv::KvShape kv_shape(const Architecture& architecture);

// Used by the engine thread. A row's result does not depend on the other rows.
class ForwardPass {
 public:
  // Bytes of device memory that a batch of this size needs besides weights and KV.
  static uint64_t workspace_bytes(const Architecture& architecture, const BatchLimits& limits);

  // Borrows everything; `workspace` is at least workspace_bytes long, aligned to 64, of which a
  // batch uses its own workspace_bytes, from the front. It, the tiles, and keys and values lie in
  // `memory`, which the host reaches through that alone.
  ForwardPass(const Architecture& architecture, const kernels::Backend& backend,
              kernels::ThreadPool& pool, const BatchLimits& limits, std::span<std::byte> workspace,
              MemoryAccess& memory = host_memory());

  const BatchLimits& limits() const { return limits_; }

  // Runs one sweep. `between_tiles` is called after every tile and between the pieces of a long
  // attention, so that no more than a few seconds' work lies between two calls; an error from it
  // ends the sweep.
  Status run(std::span<const Row> rows, WeightSource& weights,
             const std::function<Status()>& between_tiles);

  // The logits of the i-th row that wanted them, in order, of the last run; [vocabulary]. Valid
  // until the next call of this or of run().
  std::span<const float> logits(size_t i);

 private:
  // A row that has chosen the expert.
  struct RoutedRow {
    size_t row;
    float weight;
  };
  // Rows that follow each other and are rotated by the same frequencies.
  struct RotationRun {
    size_t first, rows;
    std::vector<float> frequencies;  // [rope.dim / 2]
    double factor;                   // of sine and cosine
  };

  void begin(std::span<const Row> rows);
  // Returns how many bytes of the workspace a batch of this size uses.
  uint64_t place_buffers(const BatchLimits& batch);
  std::vector<RotationRun> rotation_runs(const Rope& rope) const;
  // Of a product with rows of kv_high: all but where they and the numbers lie.
  kernels::MatmulArgs head_product(const Slice& from, const Slice& to, const TileView& tile) const;
  // Numbers of the memory where the host can read them, until the next look.
  std::span<const float> look(const float* from, size_t count);
  // to = the tile's row `row`.
  void convert(const TileView& tile, size_t row, std::span<float> to);
  // y = x, or 0 without an x: `rows` rows of `width` numbers.
  void copy_rows(const float* x, size_t x_stride, float* y, size_t y_stride, size_t rows,
                 size_t width, const size_t* index = nullptr);
  // to += factor * from, `width` numbers of one row.
  void add_row(const float* from, float* to, size_t width, float factor);
  const Step& current() const { return stages_[stage_].steps[step_]; }
  // Runs the steps up to the next that tiles drive.
  Status run_undriven(WeightSource& weights, const std::function<Status()>& between_pieces);
  Status run_step(const Step& step, WeightSource& weights,
                  const std::function<Status()>& between_pieces);
  void run_tile(const Step& step, const TileView& tile);

  Status lookup(const step::Lookup& step, size_t tensor, WeightSource& weights);
  void normalize(const step::Normalize& step, const TileView& tile);
  void multiply(const step::Product& step, const TileView& tile);
  void prepare(const kernels::MatmulArgs& args);
  void multiply_outliers(const step::Product& step, const TileView& tile);
  void measure_row_norms(const step::Product& step, const TileView& tile);
  void divide_by_row_norms(const step::Product& step, const TileView& tile);
  void add_bias(const step::Bias& step, const TileView& tile);
  void add(const step::Add& step);
  void map(const step::Map& step);
  void ungroup(const step::Ungroup& step);
  void rotate(const step::Rotate& step);
  void keep_keys_and_values();
  void keep_rows_with_logits(Buffer queries);
  Status attend(const step::Attend& step, const std::function<Status()>& between_pieces);
  size_t rows_of_piece(size_t first) const;
  void absorb_keys(const TileView& tile);
  void expand_values(const TileView& tile);
  void load_parameter(const step::LoadParameter& step, const TileView& tile);
  void load_router_bias(const TileView& tile);
  void route(WeightSource& weights);
  void gather(const step::Gather& step);
  void scatter();
  void add_gated(const step::AddGated& step);
  bool is_left_out(const Step& step) const;

  // The first row's first number.
  float* at(const Slice& slice) const {
    return buffers_[static_cast<size_t>(slice.buffer)] + slice.offset;
  }
  size_t stride(const Slice& slice) const { return strides_[static_cast<size_t>(slice.buffer)]; }

  const Architecture& architecture_;
  const kernels::Backend& backend_;
  kernels::ThreadPool& pool_;
  MemoryAccess& memory_;
  BatchLimits limits_;
  std::span<std::byte> workspace_;
  std::vector<StageSpec> stages_;
  std::vector<float> slopes_;  // [heads], with ALiBi

  std::array<float*, kBuffers> buffers_{};  // in the workspace
  std::array<size_t, kBuffers> strides_{};  // widths
  void* prepared_ = nullptr;                // likewise, of the widest input; where limits_.prepares
  float* outlier_inputs_ = nullptr;         // likewise, [rows, limits_.outliers]

  std::span<const Row> rows_;          // all, and in the end those that want logits
  std::vector<Row> rows_with_logits_;  // once the others are gone
  std::vector<uint32_t> positions_;
  // Of each rope. Where frequencies do not depend on the length there is one, of all rows.
  std::vector<std::vector<RotationRun>> rotation_runs_;
  std::vector<kernels::AttentionRow> attention_rows_;
  std::vector<std::vector<RoutedRow>> routed_;  // of each expert
  std::vector<float> router_bias_;              // [experts], or empty
  RouterMemory router_memory_;
  std::vector<bool> used_experts_;   // that some row has chosen
  std::vector<size_t> chosen_rows_;  // that are gathered
  std::vector<std::byte> looked_at_;
  std::array<float, step::LoadParameter::kCount> parameters_{};
  std::vector<float> inverse_row_norms_;  // of a normalised head, once known; 0: not yet
  size_t logit_rows_ = 0;
  size_t active_rows_ = 0;  // that the steps work on
  // Where the sweep is: the step that runs next, or whose tiles come in.
  size_t stage_ = 0;
  size_t step_ = 0;
  size_t end_stage_ = 0;
};

}  // namespace airllm::model

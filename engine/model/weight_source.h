// What the forward pass needs from the weight pipeline: tiles in the order of use, one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/number_format.h"

namespace airllm::model {

// A run of whole output rows of one weight, in device memory until it is released.
struct TileView {
  size_t stage = 0;                 // index into stages()
  size_t step = 0;                  // index into the steps of that stage
  const std::byte* data = nullptr;  // [rows, in] or [width], as stored
  kernels::NumberFormat format = kernels::NumberFormat::kF32;
  size_t row_begin = 0;  // among the weight's output rows; 0 for a vector
  size_t rows = 0;       // output rows in this tile; 1 for a vector
  bool is_last = false;  // of the weight
  // Inputs that the rows have in 16 bits besides (kernels/compressed.h); valid while the source is.
  std::span<const size_t> outliers = {};
};

// Used by one thread. A sweep is begin_sweep, then next_tile / release_tile until `done`, over all
// layers and, with a head, the head's tiles. An error ends the sweep; the next begin_sweep starts
// afresh.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The coming sweep uses so many bytes of the workspace, from the front, which may hold weights
  // otherwise. Until this is called again, the rest of it is not the pass's.
  virtual Status take_workspace(uint64_t bytes) = 0;
  // A sweep that was not finished is given up: what was read ahead for it is dropped.
  virtual void begin_sweep(bool with_head) = 0;
  // Waits for the next tile; at the end of the sweep, `done` is set instead.
  virtual Result<TileView> next_tile(bool& done) = 0;
  // The tile that next_tile gave last may be overwritten from now on.
  virtual void release_tile() = 0;

  // In the stage that next_tile is in: the tiles of experts that are not used do not come. Called
  // before the first of them.
  virtual void choose_experts(const std::vector<bool>& used) = 0;

  // Row `row` of tensor `tensor` of the embedding's stage as f32; out [in].
  virtual Status lookup(size_t tensor, uint64_t row, float* out) = 0;
};

}  // namespace airllm::model

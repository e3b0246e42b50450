// Which weights of a model are stored compressed, and how; see docs/number-formats.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/model/stages.h"
#include "kernels/number_format.h"

namespace airllm::store {

// Matrices that rows are multiplied with are compressed. What is small or matters much stays as it
// came: norms, biases, routers and gates, tables of positions, and latent attention's kv_b.
struct Compression {
  std::optional<kernels::NumberFormat> weights;  // of the layers; none: as they came
  std::optional<kernels::NumberFormat> ends;     // the embedding and the head
  // Of the layers' value projections that several query heads share, by weights of their own: they
  // are few, and an error in one is an error of all those heads. None: as `weights`.
  std::optional<kernels::NumberFormat> values;
  // The share of a layer's inputs, those whose weights vary most, that stay in 16 bits.
  double outliers = 0;
  // Both are none, but the checkpoint had weights packed in such a format already.
  bool keeps_packed = false;

  bool is_none() const { return !weights && !ends; }
  bool operator==(const Compression&) const = default;
};

// "WEIGHTS" or "WEIGHTS,ENDS", each "q8", "q4", "nf4", "fp8" or "keep"; the ends are q8 unless the
// text names them; behind it ",values=FORMAT" with a compressed format and ",outliers=FRACTION", in
// this order. An empty text compresses nothing. Else a kUsage error that says what can be.
Result<Compression> parse_compression(std::string_view text);

// "q4,q8", "q4,q8,values=q8,outliers=0.01"; what parse_compression() reads. Empty: nothing is
// compressed, "keep,keep": nothing but what was packed.
std::string compression_text(const Compression& compression);

// The compression that such a text was written for.
Result<Compression> read_compression_text(std::string_view text);

// The compressed format of this name; none: there is no such.
std::optional<kernels::NumberFormat> compressed_format(std::string_view name);

// Which of the stage's tensors may be compressed.
std::vector<bool> compressible(const model::StageSpec& stage);

// How many of a tensor's `inputs` are outliers.
size_t outlier_count(const Compression& compression, uint64_t inputs);

// What the stage's tensors, which came in `formats`, are stored as.
std::vector<kernels::NumberFormat> stored_formats(
    const Compression& compression, const model::StageSpec& stage,
    const std::vector<kernels::NumberFormat>& formats);

}  // namespace airllm::store

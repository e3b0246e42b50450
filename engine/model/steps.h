// What a stage does, as data: steps that move rows from one buffer to another. A step that needs a
// weight names the tensor whose tiles drive it; the others run on their way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>

#include "engine/model/architecture.h"
#include "kernels/backend.h"

namespace airllm::model {

// Rows of f32 in the workspace, each as wide as buffer_width says.
enum class Buffer : uint8_t {
  kStream,    // the residual stream
  kNormed,    // normalised, what the products of a layer read
  kSecond,    // normalised for the MLP, where both parts of a layer see the same stream
  kBranch,    // what a part of a layer adds to the stream, where more is done to it first
  kQkv,       // queries, keys, values
  kFused,     // the same as a fused weight gives them, in groups
  kMixed,     // attention's output
  kRawQuery,  // latent: queries as their weight gives them
  kLowQuery,  // latent: compressed queries
  kQuery,     // latent: queries against compressed keys
  kKey,       // latent: compressed keys and values, and the rotated part of keys
  kValues,    // latent: attention's output as values
  kMlp,       // gate and up, or up alone
  kRouter,    // a score for each expert
  kExpertIn,  // the rows that one expert works on
  kExpertOut,
  kSharedGate,
  kNarrow,  // embeddings that are not as wide as the stream
  kLogits,  // only of rows that want them
};
inline constexpr size_t kBuffers = static_cast<size_t>(Buffer::kLogits) + 1;

// Numbers in a row of `buffer`; 0 where the architecture does not use it.
uint64_t buffer_width(const Architecture& architecture, Buffer buffer);

// Columns of a buffer.
struct Slice {
  Buffer buffer = Buffer::kStream;
  uint64_t offset = 0;
  uint64_t width = 0;
};

namespace step {

// to = row of the tensor, by token or by position; or to += it.
struct Lookup {
  Slice to;
  bool by_position = false;
  uint64_t offset = 0;  // added to the position
  bool adds = false;
};
// to = norm(from) * tensor, each group of columns by itself. A tensor [groups, width] has a weight
// for each. Without a tensor, norm(from).
struct Normalize {
  Slice from, to;
  Norm norm;
  uint64_t groups = 1;
};
// to = tensor · from, or to += tensor · from
struct Product {
  Slice from, to;
  bool adds = false;
  bool normalizes_rows = false;  // each row of the tensor is divided by its norm
};
// to += tensor, to each group of columns
struct Bias {
  Slice to;
  uint64_t groups = 1;
};
// to += factor * from
struct Add {
  Slice from, to;
  float factor = 1;
};
// to = function(to), or function(to) * factor
struct Map {
  Slice to;
  kernels::MapArgs function;
  Slice factor = {};  // width 0: none
};
// to = from, out of groups: each holds its share of the queries, keys and values.
struct Ungroup {
  uint64_t groups = 1;
  bool values_before_keys = false;
};
// The heads of `to`, each head_dim wide, are rotated by their positions from `begin` on.
struct Rotate {
  Slice to;
  uint64_t head_dim = 0;
  size_t rope = 0;
  uint64_t begin = 0;
};
// Keys and values are kept; kMixed = attention of queries. In the last layer, only rows that want
// logits attend, and from here on there are no others.
struct Attend {
  LayerKind kind;
  bool is_last = false;
};
// Latent attention. Of kv_high, [heads * (nope_dim + value_dim), kv_rank], the rows that make keys
// are put into the queries instead: kQuery = rows^T · kRawQuery, beside its rotated part …
struct AbsorbKeys {};
// … and those that make values come after attention: kValues = rows · kMixed.
struct ExpandValues {};

// A parameter of the activation xIELU = the tensor's one number.
struct LoadParameter {
  enum class Which : uint8_t { kAlphaPositive, kAlphaNegative, kBeta, kEpsilon };
  static constexpr size_t kCount = 4;
  Which which;
};
// The router's bias = tensor
struct LoadRouterBias {};
// Each row chooses its experts by kRouter. kBranch = 0.
struct Route {};
// kExpertIn = the rows of `from` that chose the step's expert; until Scatter there are no others.
struct Gather {
  Slice from;
};
// kBranch += weight * kExpertOut
struct Scatter {};
// to += sigmoid(kSharedGate) * from
struct AddGated {
  Slice from, to;
};

}  // namespace step

struct Step {
  static constexpr size_t kNoTensor = ~size_t{0};
  static constexpr size_t kBorrowed = ~size_t{0} - 1;  // StageSpec::borrowed

  std::variant<step::Lookup, step::Normalize, step::Product, step::Bias, step::Add, step::Map,
               step::Ungroup, step::Rotate, step::Attend, step::AbsorbKeys, step::ExpandValues,
               step::LoadParameter, step::LoadRouterBias, step::Route, step::Gather, step::Scatter,
               step::AddGated>
      what;
  size_t tensor = kNoTensor;  // index into StageSpec::tensors
  // Left out, with its tiles, when no row has chosen this expert.
  std::optional<uint32_t> expert = std::nullopt;

  // Whether it runs tile by tile. A lookup reads single rows by itself.
  bool is_driven() const {
    return tensor != kNoTensor && !std::holds_alternative<step::Lookup>(what);
  }
};

}  // namespace airllm::model

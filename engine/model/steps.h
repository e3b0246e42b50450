// What a stage does, as data: steps that move rows from one buffer to another. A step that needs a
// weight names the tensor whose tiles drive it; the others run on their way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/model/architecture.h"

namespace airllm::model {

// Rows of f32 in the workspace, each as wide as buffer_width says.
enum class Buffer : uint8_t {
  kStream,  // the residual stream
  kNormed,  // normalised, what the products of a layer read
  kQuery,
  kKey,
  kValue,
  kMixed,  // attention's output
  kGate,
  kUp,
  kLogits,  // only of rows that want them
};
inline constexpr size_t kBuffers = static_cast<size_t>(Buffer::kLogits) + 1;

// Numbers in a row of `buffer`.
uint64_t buffer_width(const Architecture& architecture, Buffer buffer);

struct Step {
  enum class Kind : uint8_t {
    kNorm,        // to = norm(from) * tensor
    kProduct,     // to = tensor · from, or to += tensor · from
    kBias,        // to += tensor
    kRotate,      // to is rotated by its positions
    kAttend,      // keys and values are kept; kMixed = attention of kQuery
    kActivate,    // to = activation(to) * from
    kKeepLogits,  // to = from, only the rows that want logits; from here on there are no others
  };
  static constexpr size_t kNoTensor = ~size_t{0};

  Kind kind;
  Buffer from = Buffer::kStream;
  Buffer to = Buffer::kStream;
  size_t tensor = kNoTensor;  // index into StageSpec::tensors
  bool adds = false;          // kProduct: to what is there
};

}  // namespace airllm::model

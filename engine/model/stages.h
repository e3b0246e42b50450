// The stages of an architecture: the tensors that each one's shard holds, in the order in which the
// forward pass uses them (they lie in the shard, and stream, in that order), and what is done with
// them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/checked.h"
#include "engine/model/architecture.h"
#include "engine/model/steps.h"

namespace airllm::model {

// Where a checkpoint has a tensor that is not there by itself under its own name.
struct TensorPart {
  std::string name;             // of the tensor that holds it; empty: it is there by itself
  std::vector<uint64_t> shape;  // of that tensor
  uint64_t index = 0;           // among the equal parts of it that follow each other
};

struct TensorSpec {
  std::string name;             // as Hugging Face checkpoints call it
  std::vector<uint64_t> shape;  // [out, in] or [width]
  bool is_transposed = false;   // in checkpoints: [in, out]
  TensorPart part = {};

  uint64_t elements() const { return checked_product(shape).value(); }
};

struct StageSpec {
  enum class Kind : uint8_t { kEmbedding, kLayer, kHead };
  Kind kind;
  uint64_t layer = 0;               // of kLayer
  std::string shard_name;           // "000-embedding", "001-layer-000", …, "013-head"
  std::vector<TensorSpec> tensors;  // what its own shard holds
  // What it uses besides, of another stage's shard: a tied head's weight.
  std::optional<std::string> borrowed;
  std::vector<Step> steps;  // in order
};

// Embedding, layers 0 … n-1, head.
std::vector<StageSpec> stages(const Architecture& architecture);

// How checkpoints may call the tensor `name`: so, or without the base's prefix, as those of a bare
// model do.
std::vector<std::string> spellings(const Architecture& architecture, const std::string& name);

// Whether a checkpoint's tensor carries nothing that the forward pass needs, such as
// "…rotary_emb.inv_freq", a mask, or a head that repeats the embedding it is tied to.
bool is_ignorable_tensor(const Architecture& architecture, const std::string& name);

}  // namespace airllm::model

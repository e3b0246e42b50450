// The stages of an architecture, and the tensors that each one's shard holds, in the order in which
// the forward pass uses them: that is also the order in which they lie in the shard and stream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/architecture.h"

namespace airllm::model {

// What a tensor does in the forward pass.
enum class Role : uint8_t {
  kEmbedding,
  kAttentionNorm,
  kQuery,
  kQueryBias,
  kKey,
  kKeyBias,
  kValue,
  kValueBias,
  kAttentionOut,
  kAttentionOutBias,
  kMlpNorm,
  kGate,
  kGateBias,
  kUp,
  kUpBias,
  kDown,
  kDownBias,
  kFinalNorm,
  kHead,
};

struct TensorSpec {
  Role role;
  std::string name;             // as Hugging Face checkpoints call it
  std::vector<uint64_t> shape;  // [out, in] or [width]
};

struct StageSpec {
  enum class Kind : uint8_t { kEmbedding, kLayer, kHead };
  Kind kind;
  uint64_t layer = 0;               // of kLayer
  std::string shard_name;           // "000-embedding", "001-layer-000", …, "013-head"
  std::vector<TensorSpec> tensors;  // what its own shard holds; a tied head's weight is not here
};

// Embedding, layers 0 … n-1, head.
std::vector<StageSpec> stages(const Architecture& architecture);

// Whether a checkpoint's tensor carries nothing that the forward pass needs, such as
// "…rotary_emb.inv_freq", or a head that repeats the embedding it is tied to.
bool is_ignorable_tensor(const Architecture& architecture, const std::string& name);

}  // namespace airllm::model

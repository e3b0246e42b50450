#include "engine/model/stages.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"

namespace airllm::model {
namespace {

constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
constexpr const char* kHeadName = "lm_head.weight";

// Puts a stage together: tensors and the steps that use them, in one go.
class Builder {
 public:
  Builder(const Architecture& architecture, StageSpec::Kind kind, uint64_t layer,
          std::string shard_name)
      : architecture_(architecture) {
    stage_.kind = kind;
    stage_.layer = layer;
    stage_.shard_name = std::move(shard_name);
  }

  void norm(const std::string& name, Buffer from, Buffer to) {
    step({Step::Kind::kNorm, from, to, add_tensor(name + ".weight", {width(from)})});
  }

  // A linear layer, with its bias when it has one.
  void product(const std::string& name, Buffer from, Buffer to, bool bias, bool adds = false) {
    step({Step::Kind::kProduct, from, to, add_tensor(name + ".weight", {width(to), width(from)}),
          adds});
    if (bias) step({Step::Kind::kBias, to, to, add_tensor(name + ".bias", {width(to)})});
  }

  void borrowed_product(const std::string& tensor, Buffer from, Buffer to) {
    stage_.borrowed = tensor;
    step({Step::Kind::kProduct, from, to, stage_.tensors.size()});
  }

  void step(const Step& step) { stage_.steps.push_back(step); }

  size_t add_tensor(std::string name, std::vector<uint64_t> shape) {
    AIRLLM_CHECK(!stage_.borrowed);
    stage_.tensors.push_back({std::move(name), std::move(shape)});
    return stage_.tensors.size() - 1;
  }

  StageSpec take() { return std::move(stage_); }

 private:
  uint64_t width(Buffer buffer) const { return buffer_width(architecture_, buffer); }

  const Architecture& architecture_;
  StageSpec stage_;
};

StageSpec embedding_stage(const Architecture& a) {
  Builder stage(a, StageSpec::Kind::kEmbedding, 0, "000-embedding");
  stage.add_tensor(kEmbeddingName, {a.vocabulary, a.hidden});
  return stage.take();
}

StageSpec layer_stage(const Architecture& a, uint64_t layer) {
  Builder stage(a, StageSpec::Kind::kLayer, layer,
                fmt::format("{:03}-layer-{:03}", layer + 1, layer));
  const std::string at = fmt::format("model.layers.{}.", layer);

  stage.norm(at + "input_layernorm", Buffer::kStream, Buffer::kNormed);
  stage.product(at + "self_attn.q_proj", Buffer::kNormed, Buffer::kQuery, a.attention_qkv_bias);
  stage.product(at + "self_attn.k_proj", Buffer::kNormed, Buffer::kKey, a.attention_qkv_bias);
  stage.product(at + "self_attn.v_proj", Buffer::kNormed, Buffer::kValue, a.attention_qkv_bias);
  stage.step({Step::Kind::kRotate, Buffer::kQuery, Buffer::kQuery});
  stage.step({Step::Kind::kRotate, Buffer::kKey, Buffer::kKey});
  stage.step({Step::Kind::kAttend, Buffer::kQuery, Buffer::kMixed});
  stage.product(at + "self_attn.o_proj", Buffer::kMixed, Buffer::kStream, a.attention_out_bias,
                true);

  stage.norm(at + "post_attention_layernorm", Buffer::kStream, Buffer::kNormed);
  stage.product(at + "mlp.gate_proj", Buffer::kNormed, Buffer::kGate, a.mlp_bias);
  stage.product(at + "mlp.up_proj", Buffer::kNormed, Buffer::kUp, a.mlp_bias);
  stage.step({Step::Kind::kActivate, Buffer::kUp, Buffer::kGate});
  stage.product(at + "mlp.down_proj", Buffer::kGate, Buffer::kStream, a.mlp_bias, true);
  return stage.take();
}

StageSpec head_stage(const Architecture& a) {
  Builder stage(a, StageSpec::Kind::kHead, 0, fmt::format("{:03}-head", a.layers + 1));
  stage.step({Step::Kind::kKeepLogits, Buffer::kStream, Buffer::kNormed});
  stage.norm("model.norm", Buffer::kNormed, Buffer::kNormed);
  if (a.tied_head) {
    stage.borrowed_product(kEmbeddingName, Buffer::kNormed, Buffer::kLogits);
  } else {
    stage.product("lm_head", Buffer::kNormed, Buffer::kLogits, false);
  }
  return stage.take();
}

}  // namespace

uint64_t buffer_width(const Architecture& a, Buffer buffer) {
  switch (buffer) {
    case Buffer::kStream:
    case Buffer::kNormed: return a.hidden;
    case Buffer::kQuery:
    case Buffer::kMixed: return a.q_width();
    case Buffer::kKey:
    case Buffer::kValue: return a.kv_width();
    case Buffer::kGate:
    case Buffer::kUp: return a.intermediate;
    case Buffer::kLogits: return a.vocabulary;
  }
  AIRLLM_CHECK(false);
}

std::vector<StageSpec> stages(const Architecture& a) {
  std::vector<StageSpec> out;
  out.reserve(a.layers + 2);
  out.push_back(embedding_stage(a));
  for (uint64_t layer = 0; layer < a.layers; ++layer) out.push_back(layer_stage(a, layer));
  out.push_back(head_stage(a));
  return out;
}

bool is_ignorable_tensor(const Architecture& a, const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || (a.tied_head && name == kHeadName);
}

}  // namespace airllm::model

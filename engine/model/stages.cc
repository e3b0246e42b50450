#include "engine/model/stages.h"

#include <fmt/format.h>

namespace airllm::model {
namespace {

constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
constexpr const char* kHeadName = "lm_head.weight";

// One line of a layer's table: [out, in] with its optional bias, or a norm (`in` is 0).
struct Line {
  Role role;
  const char* name;
  uint64_t out;
  uint64_t in;
  bool bias;
  Role bias_role;
};

StageSpec layer_stage(const Architecture& a, uint64_t layer) {
  const Line lines[] = {
      {Role::kAttentionNorm, "input_layernorm", a.hidden, 0, false, {}},
      {Role::kQuery, "self_attn.q_proj", a.q_width(), a.hidden, a.attention_qkv_bias,
       Role::kQueryBias},
      {Role::kKey, "self_attn.k_proj", a.kv_width(), a.hidden, a.attention_qkv_bias,
       Role::kKeyBias},
      {Role::kValue, "self_attn.v_proj", a.kv_width(), a.hidden, a.attention_qkv_bias,
       Role::kValueBias},
      {Role::kAttentionOut, "self_attn.o_proj", a.hidden, a.q_width(), a.attention_out_bias,
       Role::kAttentionOutBias},
      {Role::kMlpNorm, "post_attention_layernorm", a.hidden, 0, false, {}},
      {Role::kGate, "mlp.gate_proj", a.intermediate, a.hidden, a.mlp_bias, Role::kGateBias},
      {Role::kUp, "mlp.up_proj", a.intermediate, a.hidden, a.mlp_bias, Role::kUpBias},
      {Role::kDown, "mlp.down_proj", a.hidden, a.intermediate, a.mlp_bias, Role::kDownBias},
  };
  StageSpec stage{
      StageSpec::Kind::kLayer, layer, fmt::format("{:03}-layer-{:03}", layer + 1, layer), {}};
  for (const Line& line : lines) {
    const std::string name = fmt::format("model.layers.{}.{}", layer, line.name);
    std::vector<uint64_t> shape{line.out};
    if (line.in != 0) shape.push_back(line.in);
    stage.tensors.push_back({line.role, name + ".weight", std::move(shape)});
    if (line.bias) stage.tensors.push_back({line.bias_role, name + ".bias", {line.out}});
  }
  return stage;
}

}  // namespace

std::vector<StageSpec> stages(const Architecture& a) {
  std::vector<StageSpec> out;
  out.reserve(a.layers + 2);
  out.push_back({StageSpec::Kind::kEmbedding,
                 0,
                 "000-embedding",
                 {{Role::kEmbedding, kEmbeddingName, {a.vocabulary, a.hidden}}}});
  for (uint64_t layer = 0; layer < a.layers; ++layer) out.push_back(layer_stage(a, layer));
  StageSpec head{StageSpec::Kind::kHead,
                 0,
                 fmt::format("{:03}-head", a.layers + 1),
                 {{Role::kFinalNorm, "model.norm.weight", {a.hidden}}}};
  if (!a.tied_head) {
    head.tensors.push_back({Role::kHead, kHeadName, {a.vocabulary, a.hidden}});
  }
  out.push_back(std::move(head));
  return out;
}

bool is_ignorable_tensor(const Architecture& a, const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || (a.tied_head && name == kHeadName);
}

}  // namespace airllm::model

#include "engine/model/description.h"

#include <algorithm>

#include "base/json.h"
#include "engine/model/forward.h"

namespace airllm::model {
namespace {

const char* name_of(kernels::NormArgs::Kind kind) {
  using Kind = kernels::NormArgs::Kind;
  switch (kind) {
    case Kind::kRms: return "rms";
    case Kind::kLayer: return "layer";
  }
  return "?";
}

Json describe_scaling(const RopeScaling& scaling) {
  using Kind = RopeScaling::Kind;
  Json out{{"factor", scaling.factor}, {"original_context", scaling.original_context}};
  switch (scaling.kind) {
    case Kind::kNone: break;
    case Kind::kLinear: return Json{{"kind", "linear"}, {"factor", scaling.factor}};
    case Kind::kDynamic: out["kind"] = "dynamic"; break;
    case Kind::kYarn: out["kind"] = "yarn"; break;
    case Kind::kLongrope: out["kind"] = "longrope"; break;
    case Kind::kLlama3:
      out["kind"] = "llama3";
      out["low_frequency_factor"] = scaling.low_frequency_factor;
      out["high_frequency_factor"] = scaling.high_frequency_factor;
      break;
  }
  return out;
}

void describe_positions(const Architecture& a, Json& out) {
  out["positions"] = a.alibi                   ? "alibi"
                     : a.learned_positions > 0 ? "learned"
                     : a.ropes.empty()         ? "none"
                                               : "rotary";
  if (a.ropes.empty()) return;
  const Rope& rope = a.ropes.front();
  out["rope_theta"] = rope.theta;
  out["rope_dim"] = rope.dim;
  if (rope.scaling.kind != RopeScaling::Kind::kNone) {
    out["rope_scaling"] = describe_scaling(rope.scaling);
  }
  if (a.ropes.size() > 1) out["rope_theta_of_windows"] = a.ropes[1].theta;
}

void describe_windows(const Architecture& a, Json& out) {
  uint64_t window = 0;
  for (const LayerKind& kind : a.kinds) window = std::max(window, kind.window);
  if (window == 0) return;
  out["window"] = window;
  out["layers_with_window"] = std::count_if(a.kinds.begin(), a.kinds.end(),
                                            [](const LayerKind& kind) { return kind.window > 0; });
}

void describe_experts(const Architecture& a, Json& out) {
  if (a.router.experts == 0) return;
  out["experts"] = a.router.experts;
  out["experts_per_token"] = a.router.chosen;
  out["expert_width"] = a.expert_width;
  if (a.shared_width > 0) out["shared_expert_width"] = a.shared_width;
  out["layers_with_experts"] = std::count_if(a.kinds.begin(), a.kinds.end(),
                                             [](const LayerKind& kind) { return kind.is_routed; });
}

void describe_latent(const Architecture& a, Json& out) {
  if (!a.is_latent()) return;
  const Latent& latent = a.latent;
  out["latent"] = Json{{"kv_rank", latent.kv_rank},
                       {"q_rank", latent.q_rank},
                       {"nope_dim", latent.nope_dim},
                       {"rope_dim", latent.rope_dim},
                       {"value_dim", latent.value_dim}};
}

}  // namespace

Json describe(const Architecture& a) {
  Json out{{"family", a.family},
           {"layers", a.layers},
           {"hidden", a.hidden},
           {"heads", a.heads},
           {"kv_heads", a.kv_heads},
           {"head_dim", a.head_dim},
           {"intermediate", a.intermediate},
           {"vocabulary", a.vocabulary},
           {"context", a.context},
           {"norm", name_of(a.norm.kind)},
           {"norm_epsilon", a.norm.epsilon}};
  describe_positions(a, out);
  describe_windows(a, out);
  describe_latent(a, out);
  describe_experts(a, out);
  out["tied_head"] = a.tied_head;
  out["end_tokens"] = a.end_tokens;
  out["begin_token"] = a.begin_token ? Json(*a.begin_token) : Json(nullptr);
  return out;
}

ParameterCount count_parameters(const Architecture& a, std::span<const StageSpec> stages) {
  ParameterCount count;
  uint64_t of_experts = 0;
  for (const StageSpec& stage : stages) {
    for (const TensorSpec& spec : stage.tensors) count.total += spec.elements();
    for (const Step& step : stage.steps) {
      if (step.expert && step.is_driven()) of_experts += stage.tensors[step.tensor].elements();
    }
  }
  const uint64_t chosen =
      a.router.experts == 0 ? 0 : of_experts / a.router.experts * a.router.chosen;
  count.active = count.total - of_experts + chosen;
  return count;
}

uint64_t kv_bytes_per_token(const Architecture& a) { return kv_shape(a).bytes_per_position(); }

}  // namespace airllm::model

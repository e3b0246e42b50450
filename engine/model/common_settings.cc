#include "engine/model/common_settings.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/utf8.h"

namespace airllm::model {
namespace {

using kernels::Function;

struct NamedFunction {
  std::string_view name;
  Function function;
};
constexpr NamedFunction kActivations[] = {
    {"silu", Function::kSilu},          {"swish", Function::kSilu},
    {"gelu", Function::kGelu},          {"gelu_new", Function::kGeluTanh},
    {"gelu_fast", Function::kGeluTanh}, {"gelu_pytorch_tanh", Function::kGeluTanh},
    {"relu", Function::kRelu},          {"relu2", Function::kReluSquared},
    {"xielu", Function::kXielu},
};

// Keys are compressed, and all heads share one: the compressed part and the rotated part.
Status read_latent(const ConfigReader& config, Architecture& out) {
  Latent& latent = out.latent;
  AIRLLM_TRY(latent.kv_rank, config.size({"kv_lora_rank"}, kMaxHeadDim));
  AIRLLM_TRY(latent.q_rank, config.count({"q_lora_rank"}, kMaxWidth, 0));
  AIRLLM_TRY(latent.nope_dim, config.size({"qk_nope_head_dim"}, kMaxHeadDim));
  AIRLLM_TRY(latent.rope_dim, config.size({"qk_rope_head_dim"}, kMaxHeadDim));
  AIRLLM_TRY(latent.value_dim, config.size({"v_head_dim"}, kMaxHeadDim));
  out.kv_heads = 1;
  out.head_dim = latent.kv_rank + latent.rope_dim;
  const uint64_t widest = out.heads * std::max(out.head_dim, latent.nope_dim + latent.value_dim);
  if (widest > kMaxWidth) {
    return config.impossible("num_attention_heads", "times the width of a head is too large");
  }
  return {};
}

Status read_sizes(const ConfigReader& config, const Defaults& defaults, Architecture& out) {
  const Keys head_keys = {"num_attention_heads", "n_head", "num_heads", "n_heads"};
  AIRLLM_TRY(out.layers,
             config.size({"num_hidden_layers", "n_layer", "num_layers", "n_layers"}, kMaxLayers));
  AIRLLM_TRY(out.hidden, config.size({"hidden_size", "n_embd", "n_embed", "d_model"}, kMaxWidth));
  std::optional<uint64_t> wide;
  if (defaults.wide_mlp) wide = 4 * out.hidden;
  AIRLLM_TRY(
      out.intermediate,
      config.size({"intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"}, kMaxWidth, wide));
  AIRLLM_TRY(out.heads, config.size(head_keys, kMaxHeads));
  AIRLLM_TRY(out.kv_heads, config.size({"num_key_value_heads"}, kMaxHeads, out.heads));
  AIRLLM_TRY(out.vocabulary, config.size({"padded_vocab_size", "vocab_size"}, kMaxVocabulary));
  AIRLLM_TRY(out.context,
             config.size({"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"},
                         kMaxContext, defaults.context));
  if (out.heads % out.kv_heads != 0) {
    return config.impossible("num_key_value_heads",
                             "does not divide num_attention_heads, " + std::to_string(out.heads));
  }
  if (defaults.is_latent) return read_latent(config, out);
  const Keys head_dim_keys = {"head_dim", "kv_channels"};
  if (!config.has(config.spelling(head_dim_keys)) && defaults.head_dim == 0 &&
      out.hidden % out.heads != 0) {
    return config.impossible(config.spelling(head_keys),
                             "does not divide hidden_size, " + std::to_string(out.hidden));
  }
  const uint64_t usual = defaults.head_dim != 0 ? defaults.head_dim : out.hidden / out.heads;
  AIRLLM_TRY(out.head_dim, config.size(head_dim_keys, kMaxHeadDim, usual));
  if (out.head_dim > kMaxHeadDim || out.q_width() > kMaxWidth) {
    return config.impossible(
        config.spelling(head_keys),
        "times the head's width, " + std::to_string(out.head_dim) + ", is too large");
  }
  return {};
}

Status read_activation(const ConfigReader& config, const Defaults& defaults, Architecture& out) {
  std::string name = defaults.activation;
  if (defaults.activation_key != nullptr) {
    AIRLLM_TRY(name, config.text({defaults.activation_key}, defaults.activation));
  }
  for (const NamedFunction& known : kActivations) {
    if (known.name != name || (known.function == Function::kXielu && out.gated)) continue;
    out.activation = known.function;
    return {};
  }
  std::string names;
  for (const NamedFunction& known : kActivations) {
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  return config.impossible(defaults.activation_key, "this activation is not known here",
                           "known are: " + names);
}

Status read_original_context(const ConfigReader& rope, const ConfigReader& config,
                             const Architecture& a, RopeScaling& scaling) {
  const char* key = "original_max_position_embeddings";
  const ConfigReader& holder = rope.has(key) ? rope : config;
  AIRLLM_TRY(scaling.original_context, holder.size({key}, kMaxContext, a.context));
  return {};
}

Status read_llama3(const ConfigReader& rope, const ConfigReader& config, RopeScaling& scaling) {
  AIRLLM_TRY(scaling.factor, rope.positive({"factor"}));
  AIRLLM_TRY(scaling.low_frequency_factor, rope.positive({"low_freq_factor"}));
  AIRLLM_TRY(scaling.high_frequency_factor, rope.positive({"high_freq_factor"}));
  const char* key = "original_max_position_embeddings";
  const ConfigReader& holder = rope.has(key) ? rope : config.has(key) ? config : rope;
  AIRLLM_TRY(scaling.original_context, holder.size({key}, kMaxContext));
  if (scaling.factor < 1) return rope.impossible("factor", "below 1");
  if (scaling.high_frequency_factor <= scaling.low_frequency_factor) {
    return rope.impossible("high_freq_factor", "not above low_freq_factor");
  }
  return {};
}

// How much longer than the original context the model's is.
double stretch(const Architecture& a, const RopeScaling& scaling) {
  return static_cast<double>(a.context) / static_cast<double>(scaling.original_context);
}

Status read_yarn(const ConfigReader& rope, const Architecture& a, RopeScaling& scaling) {
  AIRLLM_TRY(scaling.factor, rope.positive({"factor"}, stretch(a, scaling)));
  AIRLLM_TRY(scaling.beta_fast, rope.positive({"beta_fast"}, 32));
  AIRLLM_TRY(scaling.beta_slow, rope.positive({"beta_slow"}, 1));
  AIRLLM_TRY(scaling.truncate, rope.flag("truncate", true));
  AIRLLM_TRY(const double mscale, rope.number("mscale", 0));
  AIRLLM_TRY(const double mscale_all_dim, rope.number("mscale_all_dim", 0));
  double usual = yarn_mscale(scaling.factor, 1);
  if (mscale != 0 && mscale_all_dim != 0) {
    usual = yarn_mscale(scaling.factor, mscale) / yarn_mscale(scaling.factor, mscale_all_dim);
  }
  AIRLLM_TRY(scaling.attention_factor, rope.positive({"attention_factor"}, usual));
  return {};
}

Status read_longrope(const ConfigReader& rope, const Architecture& a, uint64_t dim,
                     RopeScaling& scaling) {
  AIRLLM_TRY(scaling.short_factors, rope.positives("short_factor", dim / 2));
  AIRLLM_TRY(scaling.long_factors, rope.positives("long_factor", dim / 2));
  AIRLLM_TRY(scaling.factor, rope.positive({"factor"}, stretch(a, scaling)));
  double usual = 1;
  if (scaling.factor > 1) {
    usual = std::sqrt(1 + std::log(scaling.factor) /
                              std::log(static_cast<double>(scaling.original_context)));
  }
  AIRLLM_TRY(scaling.attention_factor, rope.positive({"attention_factor"}, usual));
  // Phi 3.5 MoE has one for each set of factors.
  AIRLLM_TRY(scaling.long_attention_factor,
             rope.positive({"long_mscale"}, scaling.attention_factor));
  AIRLLM_TRY(scaling.attention_factor, rope.positive({"short_mscale"}, scaling.attention_factor));
  return {};
}

Status read_scaling(const ConfigReader& rope, const ConfigReader& config, const Architecture& a,
                    Rope& out) {
  using Kind = RopeScaling::Kind;
  const Keys type_keys = {"rope_type", "type"};
  RopeScaling& scaling = out.scaling;
  AIRLLM_TRY(const std::string type, rope.text(type_keys, "default"));
  if (type == "default") return {};
  if (type == "llama3") {
    scaling.kind = Kind::kLlama3;
    return read_llama3(rope, config, scaling);
  }
  AIRLLM_TRY_VOID(read_original_context(rope, config, a, scaling));
  if (type == "linear") {
    scaling.kind = Kind::kLinear;
    AIRLLM_TRY(scaling.factor, rope.positive({"factor"}));
    return {};
  }
  if (type == "dynamic") {
    scaling.kind = Kind::kDynamic;
    scaling.original_context = a.context;
    AIRLLM_TRY(scaling.factor, rope.positive({"factor"}));
    if (scaling.factor < 1) return rope.impossible("factor", "below 1");
    if (out.spread() <= 2)
      return rope.impossible(rope.spelling(type_keys), "its heads are too narrow for it");
    return {};
  }
  if (type == "yarn") {
    scaling.kind = Kind::kYarn;
    return read_yarn(rope, a, scaling);
  }
  if (type == "longrope" || type == "su") {
    scaling.kind = Kind::kLongrope;
    return read_longrope(rope, a, out.dim, scaling);
  }
  return rope.impossible(rope.spelling(type_keys), "this rotary scaling is not known here",
                         "known are: default, linear, dynamic, llama3, yarn, longrope");
}

// Rotary positions as `config` and, in particular, `rope` say.
Result<Rope> read_rope(const ConfigReader& config, const ConfigReader& rope,
                       const Defaults& defaults, const Architecture& architecture) {
  Rope out;
  out.interleaved = defaults.interleaved;
  AIRLLM_TRY(out.theta, config.positive({"rope_theta", "rotary_emb_base"}, defaults.theta));
  AIRLLM_TRY(out.theta, rope.positive({"rope_theta"}, out.theta));
  if (out.theta <= 1) return config.impossible("rope_theta", "not above 1");
  const Keys part_keys = {"partial_rotary_factor", "rotary_pct", "rope_pct"};
  AIRLLM_TRY(double part, config.positive(part_keys, defaults.rotary_part));
  AIRLLM_TRY(part, rope.positive({"partial_rotary_factor"}, part));
  if (part > 1) return config.impossible(config.spelling(part_keys), "above 1");
  const uint64_t head_dim =
      architecture.is_latent() ? architecture.latent.rope_dim : architecture.head_dim;
  const auto width = static_cast<uint64_t>(static_cast<double>(head_dim) * part);
  out.is_odd = width % 2 != 0;
  out.dim = width + width % 2;
  if (width < 2 || out.dim > head_dim) {
    const char* key = part < 1                 ? config.spelling(part_keys)
                      : config.has("head_dim") ? "head_dim"
                                               : "num_attention_heads";
    return config.impossible(key, (part < 1 ? "a part of " : "a head of width ") +
                                      std::to_string(part < 1 ? width : head_dim) +
                                      " cannot be rotated in pairs");
  }
  AIRLLM_TRY_VOID(read_scaling(rope, config, architecture, out));
  return out;
}

// How long a context its rotary positions stretch to. Dynamic ones follow the length, and have no
// end of their own: what four times the factor would make is taken for one.
uint64_t stretched_context(const Architecture& a) {
  uint64_t context = a.context;
  for (const Rope& rope : a.ropes) {
    const RopeScaling& scaling = rope.scaling;
    double stretched = 0;
    switch (scaling.kind) {
      case RopeScaling::Kind::kNone:
      case RopeScaling::Kind::kLlama3:
      case RopeScaling::Kind::kLongrope: break;
      case RopeScaling::Kind::kLinear:
        stretched = scaling.factor * static_cast<double>(a.context);
        break;
      case RopeScaling::Kind::kDynamic:
        stretched = 4 * scaling.factor * static_cast<double>(a.context);
        break;
      case RopeScaling::Kind::kYarn:
        stretched = scaling.factor * static_cast<double>(scaling.original_context);
        break;
    }
    stretched = std::min(stretched, static_cast<double>(kMaxContext));
    context = std::max(context, static_cast<uint64_t>(stretched));
  }
  return context;
}

}  // namespace

Result<ConfigReader> read_rope_settings(const ConfigReader& config) {
  AIRLLM_TRY(ConfigReader scaling, config.inside("rope_scaling"));
  AIRLLM_TRY(ConfigReader parameters, config.inside("rope_parameters"));
  return scaling.json().empty() && !parameters.json().empty() ? parameters : scaling;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

Status read_common(const ConfigReader& config, const Defaults& defaults, Architecture& out) {
  AIRLLM_TRY_VOID(read_sizes(config, defaults, out));
  out.norm.epsilon = defaults.epsilon;
  if (defaults.epsilon_key != nullptr) {
    AIRLLM_TRY(out.norm.epsilon, config.positive({defaults.epsilon_key}, defaults.epsilon));
  }
  out.head_norm.epsilon = out.norm.epsilon;
  AIRLLM_TRY_VOID(read_activation(config, defaults, out));
  LayerKind kind;
  kind.scale =
      1 / std::sqrt(static_cast<double>(out.is_latent() ? out.latent.query_dim() : out.head_dim));
  if (defaults.is_rotated) {
    AIRLLM_TRY(const ConfigReader settings, read_rope_settings(config));
    AIRLLM_TRY(Rope rope, read_rope(config, settings, defaults, out));
    out.ropes.push_back(std::move(rope));
    kind.rope = 0;
    out.context = stretched_context(out);
  }
  out.kinds.assign(out.layers, kind);
  AIRLLM_TRY(out.tied_head, config.flag("tie_word_embeddings", defaults.tied_head));
  AIRLLM_TRY(out.end_tokens, config.token_ids("eos_token_id", out.vocabulary));
  AIRLLM_TRY(const std::vector<int32_t> begin, config.token_ids("bos_token_id", out.vocabulary));
  if (!begin.empty()) out.begin_token = begin.front();
  return {};
}

Norm layer_norm(const Norm& like, bool bias) {
  Norm norm = like;
  norm.kind = kernels::NormArgs::Kind::kLayer;
  norm.has_bias = bias;
  return norm;
}

Status read_experts(const ConfigReader& config, Keys width_keys, Architecture& out) {
  const Keys count_keys = {"num_experts", "num_local_experts", "n_routed_experts",
                           "moe_num_experts"};
  const Keys chosen_keys = {"num_experts_per_tok", "moe_topk", "moe_k", "moe_top_k"};
  Router& router = out.router;
  AIRLLM_TRY(router.experts, config.size(count_keys, kMaxExperts));
  AIRLLM_TRY(router.chosen, config.size(chosen_keys, kMaxExperts));
  AIRLLM_TRY(out.expert_width, config.size(width_keys, kMaxWidth));
  if (router.groups == 0 || router.experts % router.groups != 0) {
    return config.impossible(
        "n_group", "does not divide the number of experts, " + std::to_string(router.experts));
  }
  if (router.chosen_groups > router.groups) {
    return config.impossible("topk_group", "above n_group");
  }
  const uint64_t choice = router.experts / router.groups * router.chosen_groups;
  if (router.chosen > choice) {
    return config.impossible(config.spelling(chosen_keys),
                             "more than can be chosen from, " + std::to_string(choice));
  }
  for (LayerKind& kind : out.kinds) kind.is_routed = true;
  return {};
}

Status read_two_ropes(const ConfigReader& config, const Defaults& full, const Defaults& sliding,
                      Architecture& out) {
  AIRLLM_TRY(ConfigReader of_full, read_rope_settings(config));
  const Json none = Json::object();
  ConfigReader of_sliding(none, config.what());
  if (of_full.has("full_attention") || of_full.has("sliding_attention")) {
    AIRLLM_TRY(of_sliding, of_full.inside("sliding_attention"));
    AIRLLM_TRY(of_full, of_full.inside("full_attention"));
  }
  AIRLLM_TRY(Rope full_rope, read_rope(config, of_full, full, out));
  // A theta of the whole configuration is of the layers without a window.
  AIRLLM_TRY(Rope sliding_rope,
             read_rope(ConfigReader(none, config.what()), of_sliding, sliding, out));
  out.ropes = {std::move(full_rope), std::move(sliding_rope)};
  for (LayerKind& kind : out.kinds) kind.rope = kind.window > 0 ? 1 : 0;
  out.context = stretched_context(out);
  return {};
}

Result<uint64_t> read_window(const ConfigReader& config, uint64_t fallback) {
  if (config.is_null("sliding_window")) return 0;
  return config.count({"sliding_window"}, kMaxContext, fallback);
}

Result<std::vector<bool>> read_sliding_layers(const ConfigReader& config, uint64_t layers,
                                              const std::function<bool(uint64_t)>& by_default) {
  std::vector<bool> out(layers);
  const Json* types = config.find("layer_types");
  if (types == nullptr) {
    for (uint64_t i = 0; i < layers; ++i) out[i] = by_default(i);
    return out;
  }
  if (!types->is_array() || types->size() != layers) {
    return config.impossible("layer_types", "not a list of " + std::to_string(layers) + " types");
  }
  for (uint64_t i = 0; i < layers; ++i) {
    const Json& type = (*types)[i];
    out[i] = type == "sliding_attention";
    if (!out[i] && type != "full_attention") {
      return config.impossible(
          "layer_types",
          "layer " + std::to_string(i) + " has a kind of attention that is not known here",
          "known are: full_attention, sliding_attention");
    }
  }
  return out;
}

Status set_windows(const ConfigReader& config, uint64_t window,
                   const std::function<bool(uint64_t)>& by_default, Architecture& out) {
  AIRLLM_TRY(const std::vector<bool> sliding, read_sliding_layers(config, out.layers, by_default));
  for (uint64_t i = 0; i < out.layers; ++i) {
    if (sliding[i]) out.kinds[i].window = window;
  }
  return {};
}

}  // namespace airllm::model

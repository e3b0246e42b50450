#include "engine/model/families.h"

#include <algorithm>
#include <cmath>

#include "engine/model/common_settings.h"

namespace airllm::model {
namespace {

// ---- parts that several families share ----

// Of queries, keys, values and attention's output alike.
Status read_attention_biases(const ConfigReader& config, Architecture& out,
                             const char* key = "attention_bias", bool fallback = false) {
  AIRLLM_TRY(out.qkv_bias, config.flag(key, fallback));
  out.attention_out_bias = out.qkv_bias;
  return {};
}

// The same, and those of the MLP.
Status read_biases(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  AIRLLM_TRY(out.mlp_bias, config.flag("mlp_bias", false));
  return {};
}

// One setting for both parts of a layer.
Status read_all_biases(const ConfigReader& config, const char* key, bool fallback,
                       Architecture& out) {
  AIRLLM_TRY_VOID(read_attention_biases(config, out, key, fallback));
  out.mlp_bias = out.qkv_bias;
  return {};
}

// "clip_qkv", where it is set.
Status read_clip(const ConfigReader& config, Architecture& out) {
  if (!config.has("clip_qkv")) return {};
  AIRLLM_TRY(out.qkv_clip, config.positive({"clip_qkv"}));
  return {};
}

void scale_scores(double scale, Architecture& out) {
  for (LayerKind& kind : out.kinds) kind.scale = scale;
}

// Attention and MLP side by side, both of the stream as one norm leaves it.
void share_norm(Architecture& out) {
  out.residual = Residual::kParallel;
  out.names.mlp_norm = "";
}

// Heads are normalised by layers of these names.
void normalize_heads(QkNorm how, const Norm& norm, Architecture& out) {
  out.qk_norm = how;
  out.head_norm = norm;
  out.names.q_norm = "self_attn.q_layernorm";
  out.names.k_norm = "self_attn.k_layernorm";
}

// ---- windows ----

// All layers have the window.
Status set_all_windows(const ConfigReader& config, uint64_t window, Architecture& out) {
  return set_windows(
      config, window, [](uint64_t) { return true; }, out);
}

// All but every `pattern`th layer have it.
Status read_windows_but_every(const ConfigReader& config, uint64_t pattern, Architecture& out) {
  AIRLLM_TRY(const uint64_t window, read_window(config, 4096));
  return set_windows(
      config, window, [=](uint64_t layer) { return (layer + 1) % pattern != 0; }, out);
}

Result<uint64_t> read_window_pattern(const ConfigReader& config, uint64_t fallback) {
  return config.size({"sliding_window_pattern", "_sliding_window_pattern"}, kMaxLayers, fallback);
}

// 0 unless windows are used at all.
Result<uint64_t> read_used_window(const ConfigReader& config, uint64_t fallback) {
  AIRLLM_TRY(const bool is_used, config.flag("use_sliding_window", false));
  AIRLLM_TRY(const uint64_t window, read_window(config, fallback));
  return is_used ? window : 0;
}

void rotate_only_with_window(Architecture& out) {
  for (LayerKind& kind : out.kinds) {
    if (kind.window == 0) kind.rope.reset();
  }
}

// ---- Llama and what differs from it in settings alone ----

Status read_llama(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, {}, out));
  return read_biases(config, out);
}

Status read_arcee(const ConfigReader& config, Architecture& out) {
  out.gated = false;
  AIRLLM_TRY_VOID(
      read_common(config, {.context = 4096, .epsilon = 1e-5, .activation = "relu2"}, out));
  return read_biases(config, out);
}

// Its activation has parameters of its own in each layer.
// Without settings of rotary positions they are stretched, and "rope_theta" means nothing.
Status read_apertus(const ConfigReader& given, Architecture& out) {
  Json settings = given.json();
  if (!given.has("rope_scaling") && !given.has("rope_parameters")) {
    settings["rope_parameters"] =
        Json{{"rope_type", "llama3"},  {"rope_theta", 12e6},
             {"factor", 8.0},          {"original_max_position_embeddings", 8192U},
             {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};
  }
  const ConfigReader config(settings, given.what());
  out.gated = false;
  out.names.attention_norm = "attention_layernorm";
  out.names.mlp_norm = "feedforward_layernorm";
  out.names.activation = "mlp.act_fn.";
  out.qk_norm = QkNorm::kHeads;
  AIRLLM_TRY_VOID(read_common(
      config, {.context = 65536, .theta = 12e6, .epsilon = 1e-5, .activation = "xielu"}, out));
  return read_attention_biases(config, out);
}

Status read_helium(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(
      config,
      {.context = 4096, .head_dim = 128, .theta = 1e5, .interleaved = true, .epsilon = 1e-8}, out));
  AIRLLM_TRY_VOID(read_biases(config, out));
  out.attention_out_bias = false;
  return {};
}

// Its own code says bias for the output and the MLP, and qkv_bias; transformers' says as Llama's.
Status read_internlm3(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_llama(config, out));
  AIRLLM_TRY(out.qkv_bias, config.flag("qkv_bias", out.qkv_bias));
  AIRLLM_TRY(out.attention_out_bias, config.flag("bias", out.attention_out_bias));
  AIRLLM_TRY(out.mlp_bias, config.flag("bias", out.mlp_bias));
  return {};
}

Status read_seed_oss(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, {.context = 524288, .head_dim = 128}, out));
  AIRLLM_TRY(out.qkv_bias, config.flag("attention_bias", true));
  AIRLLM_TRY(out.attention_out_bias, config.flag("attention_out_bias", false));
  AIRLLM_TRY(out.mlp_bias, config.flag("mlp_bias", false));
  return {};
}

Status read_ernie4_5_like(const ConfigReader& config, uint64_t head_dim, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config,
                              {.context = 131072,
                               .head_dim = head_dim,
                               .theta = 500000,
                               .interleaved = true,
                               .epsilon = 1e-5,
                               .tied_head = true},
                              out));
  return read_all_biases(config, "use_bias", false, out);
}

Status read_ernie4_5(const ConfigReader& config, Architecture& out) {
  return read_ernie4_5_like(config, 128, out);
}

Status read_smollm3(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, {.context = 32768, .theta = 2e6, .tied_head = true}, out));
  AIRLLM_TRY_VOID(read_biases(config, out));
  AIRLLM_TRY(const uint64_t window, read_used_window(config, 0));
  AIRLLM_TRY_VOID(set_windows(
      config, window, [](uint64_t) { return false; }, out));
  AIRLLM_TRY(const uint64_t interval, config.size({"no_rope_layer_interval"}, kMaxLayers, 4));
  const Json* listed = config.find("no_rope_layers");  // 1: rotated
  if (listed != nullptr && (!listed->is_array() || listed->size() != out.layers)) {
    return config.impossible("no_rope_layers",
                             "not a list of " + std::to_string(out.layers) + " numbers");
  }
  for (uint64_t i = 0; i < out.layers; ++i) {
    const bool rotated = listed != nullptr ? (*listed)[i] != 0 : (i + 1) % interval != 0;
    if (!rotated) out.kinds[i].rope.reset();
  }
  return {};
}

Status read_granite(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_llama(config, out));
  AIRLLM_TRY(out.embedding_scale, config.positive({"embedding_multiplier"}, 1));
  AIRLLM_TRY(out.residual_scale, config.positive({"residual_multiplier"}, 1));
  AIRLLM_TRY(const double scale, config.positive({"attention_multiplier"}, 1));
  scale_scores(scale, out);
  AIRLLM_TRY(const double divisor, config.positive({"logits_scaling"}, 1));
  out.logit_scale = 1 / divisor;
  return {};
}

// ---- Mistral, Qwen, Phi 3, GLM ----

Status read_mistral(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, {.context = 131072}, out));
  AIRLLM_TRY(const uint64_t window, read_window(config, 4096));
  return set_all_windows(config, window, out);
}

// Layers from max_window_layers on have a window, where windows are used at all.
Status read_qwen_windows(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY(const uint64_t window, read_used_window(config, 4096));
  AIRLLM_TRY(const uint64_t first, config.count({"max_window_layers"}, kMaxLayers, 28));
  return set_windows(
      config, window, [=](uint64_t layer) { return layer >= first; }, out);
}

Status read_qwen2(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, {.context = 32768}, out));
  out.qkv_bias = true;
  return read_qwen_windows(config, out);
}

Status read_qwen3(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, {.context = 32768, .head_dim = 128}, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  out.qk_norm = QkNorm::kHeads;
  return read_qwen_windows(config, out);
}

Status read_phi3(const ConfigReader& config, Architecture& out) {
  out.names.qkv = "self_attn.qkv_proj";
  out.names.gate_up = "mlp.gate_up_proj";
  AIRLLM_TRY_VOID(read_common(config, {.context = 4096, .epsilon = 1e-5}, out));
  AIRLLM_TRY(const uint64_t window, read_window(config, 0));
  return set_all_windows(config, window, out);
}

Status read_glm(const ConfigReader& config, Architecture& out) {
  out.names.gate_up = "mlp.gate_up_proj";
  AIRLLM_TRY_VOID(read_common(config,
                              {.context = 131072,
                               .head_dim = 128,
                               .rotary_part = 0.5,
                               .interleaved = true,
                               .epsilon = 1.5625e-7},
                              out));
  AIRLLM_TRY(out.qkv_bias, config.flag("attention_bias", true));
  return {};
}

Status read_glm4(const ConfigReader& config, Architecture& out) {
  out.names.attention_out_norm = "post_self_attn_layernorm";
  out.names.mlp_out_norm = "post_mlp_layernorm";
  return read_glm(config, out);
}

Status read_hunyuan(const ConfigReader& config, Architecture& out) {
  out.names.q_norm = "self_attn.query_layernorm";
  out.names.k_norm = "self_attn.key_layernorm";
  out.qk_norm = QkNorm::kHeads;
  out.qk_norm_after_rope = true;
  AIRLLM_TRY_VOID(read_common(config, {.epsilon = 1e-5}, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  // "dynamic" with an alpha stretches once and for all.
  Rope& rope = out.ropes.front();
  AIRLLM_TRY(const ConfigReader settings, read_rope_settings(config));
  if (rope.scaling.kind != RopeScaling::Kind::kDynamic || !settings.has("alpha")) return {};
  AIRLLM_TRY(const double alpha, settings.positive({"alpha"}));
  const auto dim = static_cast<double>(rope.dim);
  rope.theta *= std::pow(alpha, dim / (dim - 2));
  out.context = rope.scaling.original_context;  // not stretched any more
  rope.scaling = {};
  return {};
}

// ---- Gemma ----

constexpr Defaults kGemma = {.context = 8192,
                             .head_dim = 256,
                             .activation_key = "hidden_activation",
                             .activation = "gelu_pytorch_tanh",
                             .tied_head = true};

Status read_gemma_common(const ConfigReader& config, const Defaults& defaults, Architecture& out) {
  out.norm.weight_offset = out.head_norm.weight_offset = 1;
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  out.embedding_scale = std::sqrt(static_cast<double>(out.hidden));
  return {};
}

// Its first configurations say "gelu" and mean the approximation.
Status read_gemma(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY(const std::string legacy, config.text({"hidden_act"}, "gelu"));
  Defaults defaults = kGemma;
  if (legacy != "gelu") defaults.activation_key = "hidden_act";
  return read_gemma_common(config, defaults, out);
}

// A cap that is null is none; one that is absent is `fallback`.
Result<double> read_cap(const ConfigReader& config, const char* key, double fallback) {
  if (config.is_null(key)) return 0.0;
  if (!config.has(key)) return fallback;
  return config.positive({key});
}

Status read_gemma2_parts(const ConfigReader& config, uint64_t pattern, Architecture& out) {
  AIRLLM_TRY(const double scalar, config.positive({"query_pre_attn_scalar"}, 256));
  scale_scores(1 / std::sqrt(scalar), out);
  return read_windows_but_every(config, pattern, out);
}

void name_sandwich_norms(Architecture& out) {
  out.names.attention_out_norm = "post_attention_layernorm";
  out.names.mlp_norm = "pre_feedforward_layernorm";
  out.names.mlp_out_norm = "post_feedforward_layernorm";
}

Status read_gemma2(const ConfigReader& config, Architecture& out) {
  name_sandwich_norms(out);
  AIRLLM_TRY_VOID(read_gemma_common(config, kGemma, out));
  AIRLLM_TRY(out.attention_soft_cap, read_cap(config, "attn_logit_softcapping", 50));
  AIRLLM_TRY(out.logit_soft_cap, read_cap(config, "final_logit_softcapping", 30));
  return read_gemma2_parts(config, 2, out);
}

// Layers with a window rotate by frequencies of their own.
Status read_gemma3(const ConfigReader& config, Architecture& out) {
  name_sandwich_norms(out);
  out.qk_norm = QkNorm::kHeads;
  Defaults defaults = kGemma;
  defaults.context = 131072;
  defaults.is_rotated = false;  // read below
  defaults.theta = 1e6;
  AIRLLM_TRY_VOID(read_gemma_common(config, defaults, out));
  AIRLLM_TRY(const bool looks_ahead, config.flag("use_bidirectional_attention", false));
  if (looks_ahead) {
    return config.impossible("use_bidirectional_attention",
                             "a model that sees what follows cannot generate text");
  }
  AIRLLM_TRY(out.attention_soft_cap, read_cap(config, "attn_logit_softcapping", 0));
  AIRLLM_TRY(out.logit_soft_cap, read_cap(config, "final_logit_softcapping", 0));
  AIRLLM_TRY(const uint64_t pattern, read_window_pattern(config, 6));
  AIRLLM_TRY_VOID(read_gemma2_parts(config, pattern, out));

  Defaults local = defaults;
  AIRLLM_TRY(local.theta, config.positive({"rope_local_base_freq"}, 10000));
  return read_two_ropes(config, defaults, local, out);
}

// ---- norms elsewhere ----

// No norm before a part of a layer, one after it.
void name_norms_after(Architecture& out) {
  out.names.attention_norm = "";
  out.names.attention_out_norm = "post_attention_layernorm";
  out.names.mlp_norm = "";
  out.names.mlp_out_norm = "post_feedforward_layernorm";
}

// Its norms have no weights.
Status read_olmo(const ConfigReader& config, Architecture& out) {
  out.norm.kind = kernels::NormArgs::Kind::kLayer;
  out.norm.has_weight = false;
  AIRLLM_TRY_VOID(read_common(config, {.epsilon_key = nullptr, .epsilon = 1e-5}, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  return read_clip(config, out);
}

constexpr Defaults kOlmo2 = {.epsilon = 1e-5};

Status read_olmo2_like(const ConfigReader& config, const Defaults& defaults, Architecture& out) {
  name_norms_after(out);
  out.qk_norm = QkNorm::kWhole;
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  return read_attention_biases(config, out);
}

Status read_olmo2(const ConfigReader& config, Architecture& out) {
  return read_olmo2_like(config, kOlmo2, out);
}

// Layers with a window rotate without scaling.
Status read_olmo3(const ConfigReader& config, Architecture& out) {
  Defaults defaults = kOlmo2;
  defaults.theta = 500000;
  defaults.is_rotated = false;  // read below
  AIRLLM_TRY_VOID(read_olmo2_like(config, defaults, out));
  AIRLLM_TRY_VOID(read_windows_but_every(config, 4, out));
  Defaults local = defaults;
  AIRLLM_TRY(local.theta, config.positive({"rope_theta"}, defaults.theta));
  return read_two_ropes(config, defaults, local, out);
}

// Where windows are used, only layers with one are rotated.
Status read_exaone4(const ConfigReader& config, Architecture& out) {
  name_norms_after(out);
  out.qk_norm = QkNorm::kHeads;
  AIRLLM_TRY_VOID(read_common(config, {.epsilon = 1e-5}, out));
  AIRLLM_TRY(const uint64_t window, read_window(config, 4096));
  if (window == 0) return {};
  std::function<bool(uint64_t)> by_default = [](uint64_t) { return false; };
  const Json* pattern = config.find("sliding_window_pattern");
  if (pattern != nullptr && pattern->is_string()) {  // "LLLG": local, …, global
    const std::string kinds = pattern->get<std::string>();
    if (kinds.empty()) return config.impossible("sliding_window_pattern", "empty");
    by_default = [kinds](uint64_t layer) { return kinds[layer % kinds.size()] == 'L'; };
  } else {
    AIRLLM_TRY(const uint64_t every, config.count({"sliding_window_pattern"}, kMaxLayers, 4));
    if (every > 0) by_default = [=](uint64_t layer) { return (layer + 1) % every != 0; };
  }
  AIRLLM_TRY_VOID(set_windows(config, window, by_default, out));
  rotate_only_with_window(out);
  return {};
}

Status read_nemotron(const ConfigReader& config, Architecture& out) {
  out.gated = false;
  out.norm = layer_norm(out.norm);
  out.norm.weight_offset = 1;
  AIRLLM_TRY_VOID(read_common(config,
                              {.context = 4096,
                               .rotary_part = 0.5,
                               .epsilon_key = "norm_eps",
                               .epsilon = 1e-5,
                               .activation = "relu2"},
                              out));
  return read_biases(config, out);
}

Status read_stablelm(const ConfigReader& config, Architecture& out) {
  out.norm = layer_norm(out.norm);
  AIRLLM_TRY_VOID(read_common(
      config,
      {.context = 4096, .rotary_part = 0.25, .epsilon_key = "layer_norm_eps", .epsilon = 1e-5},
      out));
  AIRLLM_TRY(out.qkv_bias, config.flag("use_qkv_bias", false));
  AIRLLM_TRY(const bool normed, config.flag("qk_layernorm", false));
  if (normed) normalize_heads(QkNorm::kHeadByTensor, layer_norm(out.head_norm, false), out);
  AIRLLM_TRY(const bool parallel, config.flag("use_parallel_residual", false));
  if (parallel) share_norm(out);
  return {};
}

Status read_starcoder2(const ConfigReader& config, Architecture& out) {
  out.gated = false;
  out.names.up = "mlp.c_fc";
  out.names.down = "mlp.c_proj";
  out.norm = layer_norm(out.norm);
  AIRLLM_TRY_VOID(read_common(config,
                              {.context = 4096,
                               .epsilon_key = "norm_epsilon",
                               .epsilon = 1e-5,
                               .activation = "gelu_pytorch_tanh",
                               .tied_head = true},
                              out));
  AIRLLM_TRY_VOID(read_all_biases(config, "use_bias", true, out));
  AIRLLM_TRY(const uint64_t window, read_window(config, 0));
  return set_all_windows(config, window, out);
}

// ---- attention and MLP side by side ----

Status read_cohere(const ConfigReader& config, Architecture& out) {
  share_norm(out);
  out.norm = layer_norm(out.norm, false);
  AIRLLM_TRY_VOID(read_common(config,
                              {.context = 8192,
                               .theta = 500000,
                               .interleaved = true,
                               .epsilon_key = "layer_norm_eps",
                               .epsilon = 1e-5,
                               .tied_head = true},
                              out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  AIRLLM_TRY(const bool normed, config.flag("use_qk_norm", false));
  if (normed) {
    out.qk_norm = QkNorm::kEachHead;
    out.head_norm = layer_norm(out.head_norm, false);
  }
  AIRLLM_TRY(out.logit_scale, config.positive({"logit_scale"}, 0.0625));
  return {};
}

// Only layers with a window are rotated.
Status read_cohere2(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_cohere(config, out));
  AIRLLM_TRY(const uint64_t pattern, read_window_pattern(config, 4));
  AIRLLM_TRY_VOID(read_windows_but_every(config, pattern, out));
  rotate_only_with_window(out);
  return {};
}

Status read_phi(const ConfigReader& config, Architecture& out) {
  share_norm(out);
  out.names.final_norm = "model.final_layernorm";
  out.names.attention_out = "self_attn.dense";
  out.names.up = "mlp.fc1";
  out.names.down = "mlp.fc2";
  out.gated = false;
  out.qkv_bias = out.attention_out_bias = out.mlp_bias = out.head_bias = true;
  out.norm = layer_norm(out.norm);
  AIRLLM_TRY_VOID(read_common(config,
                              {.rotary_part = 0.5,
                               .epsilon_key = "layer_norm_eps",
                               .epsilon = 1e-5,
                               .activation = "gelu_new"},
                              out));
  AIRLLM_TRY(const bool normed, config.flag("qk_layernorm", false));
  if (normed) normalize_heads(QkNorm::kHeads, layer_norm(out.head_norm), out);
  return {};
}

constexpr Defaults kGpt = {.wide_mlp = true,
                           .is_rotated = false,
                           .epsilon_key = "layer_norm_epsilon",
                           .epsilon = 1e-5,
                           .activation_key = "activation_function",
                           .activation = "gelu_new",
                           .tied_head = true};

void name_gpt(Architecture& out) {
  out.names.base = "transformer.";
  out.names.embedding = "transformer.wte";
  out.names.final_norm = "transformer.ln_f";
  out.names.layer = "transformer.h.{}.";
  out.names.attention_norm = "ln_1";
  out.names.mlp_norm = "ln_2";
  out.gated = false;
  out.norm = layer_norm(out.norm);
}

// GPT-J and CodeGen: the first rotary_dim numbers of a head are rotated, in neighbouring pairs.
Status read_gptj_common(const ConfigReader& config, Architecture& out) {
  name_gpt(out);
  share_norm(out);
  out.names.attention_out = "attn.out_proj";
  out.names.up = "mlp.fc_in";
  out.names.down = "mlp.fc_out";
  out.mlp_bias = out.head_bias = true;
  Defaults defaults = kGpt;
  defaults.tied_head = false;
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY(const uint64_t dim, config.size({"rotary_dim"}, kMaxHeadDim, 64));
  if (dim % 2 != 0 || dim > out.head_dim) {
    return config.impossible("rotary_dim",
                             "not an even part of a head of " + std::to_string(out.head_dim));
  }
  Rope rope;
  rope.dim = dim;
  rope.interleaved = true;
  out.ropes.push_back(rope);
  for (LayerKind& kind : out.kinds) kind.rope = 0;
  return {};
}

Status read_gptj(const ConfigReader& config, Architecture& out) {
  out.names.q = "attn.q_proj";
  out.names.k = "attn.k_proj";
  out.names.v = "attn.v_proj";
  return read_gptj_common(config, out);
}

Status read_codegen(const ConfigReader& config, Architecture& out) {
  out.names.qkv = "attn.qkv_proj";
  out.qkv_groups = 4;
  out.values_before_keys = true;
  AIRLLM_TRY_VOID(read_gptj_common(config, out));
  if (out.heads % out.qkv_groups == 0) return {};
  return config.impossible("n_head", "not a multiple of 4");
}

Status read_gpt_neox(const ConfigReader& config, Architecture& out) {
  out.names.base = "gpt_neox.";
  out.names.embedding = "gpt_neox.embed_in";
  out.names.final_norm = "gpt_neox.final_layer_norm";
  out.names.head = "embed_out";
  out.names.layer = "gpt_neox.layers.{}.";
  out.names.qkv = "attention.query_key_value";
  out.names.attention_out = "attention.dense";
  out.names.up = "mlp.dense_h_to_4h";
  out.names.down = "mlp.dense_4h_to_h";
  out.gated = false;
  out.mlp_bias = true;
  out.norm = layer_norm(out.norm);
  AIRLLM_TRY_VOID(read_common(
      config,
      {.rotary_part = 0.25, .epsilon_key = "layer_norm_eps", .epsilon = 1e-5, .activation = "gelu"},
      out));
  out.qkv_groups = out.heads;
  AIRLLM_TRY_VOID(read_attention_biases(config, out, "attention_bias", true));
  AIRLLM_TRY(const bool parallel, config.flag("use_parallel_residual", true));
  if (parallel) out.residual = Residual::kParallel;
  return {};
}

// Bloom and Falcon, with the norms' places of Llama's names.
void name_bloom(Architecture& out) {
  out.names.base = "transformer.";
  out.names.embedding = "transformer.word_embeddings";
  out.names.final_norm = "transformer.ln_f";
  out.names.layer = "transformer.h.{}.";
  out.names.qkv = "self_attention.query_key_value";
  out.names.attention_out = "self_attention.dense";
  out.names.up = "mlp.dense_h_to_4h";
  out.names.down = "mlp.dense_4h_to_h";
  out.gated = false;
  out.norm = layer_norm(out.norm);
}

// Three styles: one key head ("7B"), some ("40B", "11B"), or as many as there are queries.
Status read_falcon(const ConfigReader& config, Architecture& out) {
  name_bloom(out);
  AIRLLM_TRY(const bool alibi, config.flag("alibi", false));
  AIRLLM_TRY_VOID(read_common(config,
                              {.wide_mlp = true,
                               .is_rotated = !alibi,
                               .epsilon_key = "layer_norm_epsilon",
                               .epsilon = 1e-5,
                               .activation_key = "activation",
                               .activation = "gelu",
                               .tied_head = true},
                              out));
  out.alibi = out.alibi_of_falcon = alibi;
  AIRLLM_TRY_VOID(read_all_biases(config, "bias", false, out));
  AIRLLM_TRY(const bool is_new, config.flag("new_decoder_architecture", false));
  AIRLLM_TRY(const bool multi_query, config.flag("multi_query", true));
  AIRLLM_TRY(const bool parallel, config.flag("parallel_attn", true));
  const Keys kv_head_keys = {"num_kv_heads", "n_head_kv"};
  out.kv_heads = out.heads;
  if (is_new) {
    AIRLLM_TRY(out.kv_heads, config.size(kv_head_keys, kMaxHeads, out.heads));
  }
  if (out.heads % out.kv_heads != 0) {
    return config.impossible(config.spelling(kv_head_keys), "does not divide num_attention_heads");
  }
  out.qkv_groups = out.kv_heads;
  if (!is_new && multi_query) out.kv_heads = out.qkv_groups = 1;
  if (is_new || parallel) share_norm(out);
  AIRLLM_TRY(const uint64_t norms, config.size({"num_ln_in_parallel_attn"}, 2, 2));
  if (is_new && norms == 2) {
    out.names.attention_norm = "ln_attn";
    out.names.mlp_norm = "ln_mlp";
  }
  return {};
}

// ---- learned positions and slopes ----

void learn_positions(Architecture& out) {
  out.names.positions = "transformer.wpe";
  out.learned_positions = out.context;
}

Status read_gpt2_scale(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY(const bool scaled, config.flag("scale_attn_weights", true));
  AIRLLM_TRY(const bool by_layer, config.flag("scale_attn_by_inverse_layer_idx", false));
  for (uint64_t i = 0; i < out.layers; ++i) {
    if (!scaled) out.kinds[i].scale = 1;
    if (by_layer) out.kinds[i].scale /= static_cast<double>(i + 1);
  }
  return {};
}

void name_gpt2(Architecture& out) {
  name_gpt(out);
  out.names.qkv = "attn.c_attn";
  out.names.attention_out = "attn.c_proj";
  out.names.up = "mlp.c_fc";
  out.names.down = "mlp.c_proj";
  out.qkv_bias = out.attention_out_bias = out.mlp_bias = true;
}

Status read_gpt2(const ConfigReader& config, Architecture& out) {
  name_gpt2(out);
  out.is_conv1d = true;
  Defaults defaults = kGpt;
  defaults.context = 1024;
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  learn_positions(out);
  return read_gpt2_scale(config, out);
}

Status read_gpt_bigcode(const ConfigReader& config, Architecture& out) {
  name_gpt2(out);
  Defaults defaults = kGpt;
  defaults.context = 1024;
  defaults.activation = "gelu_pytorch_tanh";
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY(const bool multi_query, config.flag("multi_query", true));
  out.kv_heads = multi_query ? 1 : out.heads;
  out.qkv_groups = out.kv_heads;
  learn_positions(out);
  return read_gpt2_scale(config, out);
}

// [[["global", "local"], 12], …]: kinds of layers, and how often they come.
Result<std::vector<bool>> read_local_layers(const ConfigReader& config, uint64_t layers) {
  const char* key = config.has("attention_layers") ? "attention_layers" : "attention_types";
  const Json* listed = config.find(key);
  std::vector<bool> out;
  const auto add = [&](const Json& kinds) {
    for (const Json& kind : kinds) out.push_back(kind == "local");
  };
  if (listed == nullptr || !listed->is_array()) return config.impossible(key, "not a list");
  if (std::string_view(key) == "attention_layers") {
    add(*listed);
  } else {
    for (const Json& part : *listed) {
      if (!part.is_array() || part.size() != 2 || !part[0].is_array() ||
          !part[1].is_number_unsigned() || part[1].get<uint64_t>() > layers) {
        return config.impossible(key, "not a list of kinds and how often they come");
      }
      for (uint64_t i = 0; i < part[1].get<uint64_t>() && out.size() <= layers; ++i) add(part[0]);
    }
  }
  if (out.size() == layers) return out;
  return config.impossible(key, "does not make " + std::to_string(layers) + " layers");
}

// Its scores are not scaled.
Status read_gpt_neo(const ConfigReader& config, Architecture& out) {
  name_gpt2(out);
  out.names.qkv = "";
  out.names.q = "attn.attention.q_proj";
  out.names.k = "attn.attention.k_proj";
  out.names.v = "attn.attention.v_proj";
  out.names.attention_out = "attn.attention.out_proj";
  out.qkv_bias = false;
  AIRLLM_TRY_VOID(read_common(config, kGpt, out));
  AIRLLM_TRY(const uint64_t window, config.size({"window_size"}, kMaxContext, 256));
  AIRLLM_TRY(const std::vector<bool> local, read_local_layers(config, out.layers));
  for (uint64_t i = 0; i < out.layers; ++i) {
    out.kinds[i].scale = 1;
    if (local[i]) out.kinds[i].window = window;
  }
  learn_positions(out);
  return {};
}

Status read_opt(const ConfigReader& config, Architecture& out) {
  out.names.embedding = "model.decoder.embed_tokens";
  out.names.positions = "model.decoder.embed_positions";
  out.names.project_in = "model.decoder.project_in";
  out.names.project_out = "model.decoder.project_out";
  out.names.final_norm = "model.decoder.final_layer_norm";
  out.names.layer = "model.decoder.layers.{}.";
  out.names.attention_norm = "self_attn_layer_norm";
  out.names.attention_out = "self_attn.out_proj";
  out.names.mlp_norm = "final_layer_norm";
  out.names.up = "fc1";
  out.names.down = "fc2";
  out.gated = false;
  out.norm = layer_norm(out.norm);
  Defaults defaults = kGpt;
  defaults.activation = "relu";
  defaults.epsilon_key = nullptr;
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY(out.norm.has_weight, config.flag("layer_norm_elementwise_affine", true));
  out.norm.has_bias = out.norm.has_weight;
  AIRLLM_TRY_VOID(read_all_biases(config, "enable_bias", true, out));
  out.position_offset = 2;
  out.learned_positions = out.context + out.position_offset;
  AIRLLM_TRY(const uint64_t width, config.size({"word_embed_proj_dim"}, kMaxWidth, out.hidden));
  if (width != out.hidden) out.embedding_width = width;
  AIRLLM_TRY(const bool norm_before, config.flag("do_layer_norm_before", true));
  AIRLLM_TRY(const bool no_final, config.flag("_remove_final_layer_norm", false));
  if (!norm_before) out.residual = Residual::kNormAfter;
  if (!norm_before || no_final) out.names.final_norm = "";
  return {};
}

Status read_bloom(const ConfigReader& config, Architecture& out) {
  name_bloom(out);
  out.names.embedding_norm = "transformer.word_embeddings_layernorm";
  out.alibi = true;
  out.qkv_bias = out.attention_out_bias = out.mlp_bias = true;
  Defaults defaults = kGpt;
  defaults.activation_key = nullptr;
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  out.qkv_groups = out.heads;
  AIRLLM_TRY(const bool from_norm, config.flag("apply_residual_connection_post_layernorm", false));
  if (from_norm) out.residual = Residual::kFromNorm;
  return {};
}

Status read_mpt(const ConfigReader& config, Architecture& out) {
  name_gpt(out);
  out.names.final_norm = "transformer.norm_f";
  out.names.layer = "transformer.blocks.{}.";
  out.names.attention_norm = "norm_1";
  out.names.mlp_norm = "norm_2";
  out.names.qkv = "attn.Wqkv";
  out.names.attention_out = "attn.out_proj";
  out.names.up = "ffn.up_proj";
  out.names.down = "ffn.down_proj";
  out.norm = layer_norm(out.norm, false);
  out.alibi = true;
  Defaults defaults = kGpt;
  defaults.activation_key = nullptr;
  defaults.activation = "gelu";
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY(const ConfigReader attention, config.inside("attn_config"));
  for (const char* key : {"qk_ln", "prefix_lm"}) {
    AIRLLM_TRY(const bool is_set, attention.flag(key, false));
    if (is_set) return attention.impossible(key, "this is not known here");
  }
  AIRLLM_TRY(const bool alibi, attention.flag("alibi", true));
  if (!alibi) return attention.impossible("alibi", "only models with it are known here");
  AIRLLM_TRY_VOID(read_clip(attention, out));
  if (attention.has("softmax_scale")) {
    AIRLLM_TRY(const double scale, attention.positive({"softmax_scale"}));
    scale_scores(scale, out);
  }
  return {};
}

// Its heads are normalised with biases, and the query, key and value of each come together.
Status read_persimmon(const ConfigReader& config, Architecture& out) {
  out.names.final_norm = "model.final_layernorm";
  out.names.qkv = "self_attn.query_key_value";
  out.names.attention_out = "self_attn.dense";
  out.names.up = "mlp.dense_h_to_4h";
  out.names.down = "mlp.dense_4h_to_h";
  out.gated = false;
  out.qkv_bias = out.attention_out_bias = out.mlp_bias = true;
  out.norm = layer_norm(out.norm);
  AIRLLM_TRY_VOID(read_common(config,
                              {.context = 16384,
                               .rotary_part = 0.5,
                               .epsilon_key = "layer_norm_eps",
                               .epsilon = 1e-5,
                               .activation = "relu2"},
                              out));
  out.kv_heads = out.qkv_groups = out.heads;
  AIRLLM_TRY(const bool normed, config.flag("qk_layernorm", true));
  if (normed) normalize_heads(QkNorm::kHeads, layer_norm(out.head_norm), out);
  return {};
}

// ---- mixtures of experts ----

Status read_mixtral(const ConfigReader& config, Architecture& out) {
  out.names.router = "block_sparse_moe.gate";
  out.names.expert = "block_sparse_moe.experts.{}.";
  out.names.expert_gate = "w1";
  out.names.expert_up = "w3";
  out.names.expert_down = "w2";
  out.router.normalizes = true;
  AIRLLM_TRY_VOID(read_common(config, {.context = 131072, .theta = 1e6, .epsilon = 1e-5}, out));
  AIRLLM_TRY_VOID(read_experts(config, {"intermediate_size"}, out));
  AIRLLM_TRY(const uint64_t window, read_window(config, 0));
  return set_all_windows(config, window, out);
}

Status read_phimoe(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_mixtral(config, out));
  out.norm = layer_norm(out.norm);
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  AIRLLM_TRY(out.head_bias, config.flag("lm_head_bias", false));
  out.router.normalizes = false;
  out.router.score = Router::Score::kSparseMixer;
  out.router.chosen = 2;  // whatever num_experts_per_tok says
  if (out.router.experts < 2) return config.impossible("num_local_experts", "fewer than 2");
  AIRLLM_TRY(out.router.nearness, config.number("router_jitter_noise", 0.01));
  return {};
}

// Layers that a list or a step leaves out have a plain MLP.
Status read_sparse_layers(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY(const uint64_t step, config.size({"decoder_sparse_step"}, kMaxLayers, 1));
  for (uint64_t i = 0; i < out.layers; ++i) out.kinds[i].is_routed = (i + 1) % step == 0;
  const Json* plain = config.find("mlp_only_layers");
  if (plain == nullptr) return {};
  if (!plain->is_array()) return config.impossible("mlp_only_layers", "not a list");
  for (const Json& layer : *plain) {
    if (!layer.is_number_unsigned()) {
      return config.impossible("mlp_only_layers", "not a list of layers");
    }
    const auto number = layer.get<uint64_t>();
    if (number < out.layers) out.kinds[number].is_routed = false;
  }
  return {};
}

Status read_qwen2_moe(const ConfigReader& config, Architecture& out) {
  out.names.shared = "mlp.shared_expert.";
  out.names.shared_gate = "mlp.shared_expert_gate";
  AIRLLM_TRY_VOID(read_common(config, {.context = 32768}, out));
  AIRLLM_TRY(out.qkv_bias, config.flag("qkv_bias", true));
  AIRLLM_TRY_VOID(read_experts(config, {"moe_intermediate_size"}, out));
  AIRLLM_TRY(out.shared_width, config.size({"shared_expert_intermediate_size"}, kMaxWidth));
  AIRLLM_TRY(out.router.normalizes, config.flag("norm_topk_prob", false));
  AIRLLM_TRY_VOID(read_sparse_layers(config, out));
  AIRLLM_TRY(const uint64_t window, read_used_window(config, 4096));
  AIRLLM_TRY(const uint64_t first, config.count({"max_window_layers"}, kMaxLayers, 28));
  return set_windows(
      config, window, [=](uint64_t layer) { return (layer + 1) % 2 != 0 && layer < first; }, out);
}

Status read_qwen3_moe(const ConfigReader& config, Architecture& out) {
  out.qk_norm = QkNorm::kHeads;
  AIRLLM_TRY_VOID(read_common(config, {.context = 32768}, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  AIRLLM_TRY_VOID(read_experts(config, {"moe_intermediate_size"}, out));
  AIRLLM_TRY(out.router.normalizes, config.flag("norm_topk_prob", false));
  AIRLLM_TRY_VOID(read_sparse_layers(config, out));
  AIRLLM_TRY(const uint64_t window, read_used_window(config, 4096));
  return set_all_windows(config, window, out);
}

Status read_olmoe(const ConfigReader& config, Architecture& out) {
  out.qk_norm = QkNorm::kWhole;
  AIRLLM_TRY_VOID(read_common(config, {.context = 4096, .epsilon = 1e-5}, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  AIRLLM_TRY_VOID(read_experts(config, {"intermediate_size"}, out));
  AIRLLM_TRY(out.router.normalizes, config.flag("norm_topk_prob", false));
  return read_clip(config, out);
}

// Its weights are a softmax over the chosen alone, which is the whole one divided by their sum.
Status read_granitemoe(const ConfigReader& config, Architecture& out) {
  out.names.router = "block_sparse_moe.router.layer";
  out.names.expert_gate_up = "block_sparse_moe.input_linear";
  out.names.expert_down = "block_sparse_moe.output_linear";
  out.expert_layout = ExpertLayout::kStacked;
  out.router.normalizes = true;
  AIRLLM_TRY_VOID(read_granite(config, out));
  out.mlp_bias = false;
  return read_experts(config, {"intermediate_size"}, out);
}

Status read_ernie4_5_moe(const ConfigReader& config, Architecture& out) {
  out.names.router_bias = "mlp.moe_statics.e_score_correction_bias";
  out.router_bias_rank = 2;
  out.router.has_bias = true;
  out.router.normalizes = true;
  AIRLLM_TRY_VOID(read_ernie4_5_like(config, 0, out));
  AIRLLM_TRY_VOID(read_experts(config, {"moe_intermediate_size"}, out));
  AIRLLM_TRY(const uint64_t shared, config.count({"moe_num_shared_experts"}, kMaxExperts, 2));
  out.shared_width = shared * out.expert_width;
  AIRLLM_TRY(const uint64_t start, config.count({"moe_layer_start_index"}, kMaxLayers, 1));
  AIRLLM_TRY(const uint64_t every, config.size({"moe_layer_interval"}, kMaxLayers, 1));
  uint64_t end = out.layers - 1;  // -1 says so, too
  const Json* last = config.find("moe_layer_end_index");
  if (last != nullptr && *last != -1) {
    AIRLLM_TRY(end, config.count({"moe_layer_end_index"}, kMaxLayers, end));
  }
  for (uint64_t i = 0; i < out.layers; ++i) {
    out.kinds[i].is_routed = (i + 1) % every == 0 && i >= start && i <= end;
  }
  AIRLLM_TRY(out.next_token_layers, config.count({"num_nextn_predict_layers"}, kMaxLayers, 0));
  AIRLLM_TRY(out.head_bias, config.flag("use_bias", false));
  return {};
}

// Its settings of experts may be lists, one for each layer; only such that are all alike are known.
Status read_hunyuan_moe(const ConfigReader& given, Architecture& out) {
  Json flat = given.json();
  for (const char* key : {"num_experts", "moe_topk"}) {
    const Json* list = given.find(key);
    if (list == nullptr || !list->is_array() || list->empty()) continue;
    const Json first = list->front();
    for (const Json& item : *list) {
      if (item != first) return given.impossible(key, "layers that differ are not known here");
    }
    flat[key] = first;
  }
  const ConfigReader config(flat, given.what());
  out.names.router = "mlp.gate.wg";
  out.names.shared = "mlp.shared_mlp.";
  out.router.normalizes = true;
  AIRLLM_TRY_VOID(read_hunyuan(config, out));
  AIRLLM_TRY_VOID(read_experts(config, {"intermediate_size"}, out));
  out.shared_width = out.intermediate;
  return {};
}

Status read_dbrx(const ConfigReader& config, Architecture& out) {
  name_gpt(out);
  out.names.final_norm = "transformer.norm_f";
  out.names.layer = "transformer.blocks.{}.";
  out.names.attention_norm = "norm_attn_norm.norm_1";
  out.names.qkv = "norm_attn_norm.attn.Wqkv";
  out.names.attention_out = "norm_attn_norm.attn.out_proj";
  out.names.mlp_norm = "norm_attn_norm.norm_2";
  out.names.router = "ffn.router.layer";
  out.names.expert_gate = "ffn.experts.mlp.w1";
  out.names.expert_up = "ffn.experts.mlp.v1";
  out.names.expert_down = "ffn.experts.mlp.w2";
  out.expert_layout = ExpertLayout::kFlat;
  out.gated = true;
  out.norm = layer_norm(out.norm, false);
  AIRLLM_TRY(const ConfigReader attention, config.inside("attn_config"));
  AIRLLM_TRY(const ConfigReader ffn, config.inside("ffn_config"));
  Defaults defaults = kGpt;
  defaults.is_rotated = true;
  defaults.epsilon_key = defaults.activation_key = nullptr;
  defaults.activation = "silu";
  defaults.tied_head = false;
  AIRLLM_TRY(defaults.theta, attention.positive({"rope_theta"}, 10000));
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY(out.kv_heads, attention.size({"kv_n_heads"}, kMaxHeads, out.kv_heads));
  if (out.heads % out.kv_heads != 0) {
    return attention.impossible("kv_n_heads", "does not divide n_heads");
  }
  AIRLLM_TRY_VOID(read_clip(attention, out));
  AIRLLM_TRY(const ConfigReader function, ffn.inside("ffn_act_fn"));
  AIRLLM_TRY(const std::string name, function.text({"name"}, "silu"));
  if (name != "silu") return function.impossible("name", "only silu is known here");
  AIRLLM_TRY_VOID(read_experts(ffn, {"ffn_hidden_size"}, out));
  out.intermediate = out.expert_width;
  out.router.normalizes = ffn.has("moe_normalize_expert_weights");
  AIRLLM_TRY(out.router.norm_power, ffn.positive({"moe_normalize_expert_weights"}, 1));
  return {};
}

// ---- families whose code lies in hub repositories ----

// Qwen 1. Its logarithmic scaling of attention and its stretched frequencies begin behind
// seq_length, which is therefore the context where they are on.
Status read_qwen(const ConfigReader& config, Architecture& out) {
  name_gpt(out);
  out.gated = true;
  out.norm = {};
  out.names.qkv = "attn.c_attn";
  out.names.attention_out = "attn.c_proj";
  out.names.gate = "mlp.w2";
  out.names.up = "mlp.w1";
  out.names.down = "mlp.c_proj";
  AIRLLM_TRY_VOID(read_common(
      config, {.context = 8192, .epsilon_key = "layer_norm_epsilon", .activation_key = nullptr},
      out));
  if (out.intermediate % 2 != 0) {
    return config.impossible("intermediate_size", "not even, as that of two halves");
  }
  out.intermediate /= 2;
  AIRLLM_TRY(const bool no_bias, config.flag("no_bias", true));
  out.qkv_bias = true;
  out.attention_out_bias = out.mlp_bias = !no_bias;
  AIRLLM_TRY(const bool stretched, config.flag("use_dynamic_ntk", true));
  AIRLLM_TRY(const bool scaled, config.flag("use_logn_attn", true));
  if (stretched || scaled) {
    AIRLLM_TRY(out.context, config.size({"seq_length"}, kMaxContext, 8192));
  }
  return {};
}

// ChatGLM 2 and 3, and GLM-4 as its first repositories have it.
Status read_chatglm(const ConfigReader& config, Architecture& out) {
  if (config.has("position_encoding_2d")) {
    return config.impossible("position_encoding_2d",
                             "ChatGLM's first generation is not known here");
  }
  AIRLLM_TRY(const bool rms, config.flag("rmsnorm", true));
  if (!rms) return config.impossible("rmsnorm", "only true is known here");
  out.names.base = "";
  out.names.embedding = "transformer.embedding.word_embeddings";
  out.names.final_norm = "transformer.encoder.final_layernorm";
  out.names.head = "transformer.output_layer";
  out.names.layer = "transformer.encoder.layers.{}.";
  out.names.qkv = "self_attention.query_key_value";
  out.names.attention_out = "self_attention.dense";
  out.names.gate_up = "mlp.dense_h_to_4h";
  out.names.down = "mlp.dense_4h_to_h";
  AIRLLM_TRY_VOID(read_common(config,
                              {.rotary_part = 0.5,
                               .interleaved = true,
                               .epsilon_key = "layernorm_epsilon",
                               .epsilon = 1e-5,
                               .activation_key = nullptr},
                              out));
  AIRLLM_TRY(const bool grouped, config.flag("multi_query_attention", false));
  if (grouped) {
    AIRLLM_TRY(out.kv_heads, config.size({"multi_query_group_num"}, kMaxHeads, 1));
    if (out.heads % out.kv_heads != 0) {
      return config.impossible("multi_query_group_num", "does not divide num_attention_heads");
    }
  }
  AIRLLM_TRY(const double ratio, config.positive({"rope_ratio"}, 1));
  out.ropes.front().theta *= ratio;
  AIRLLM_TRY(out.mlp_bias, config.flag("add_bias_linear", false));
  out.attention_out_bias = out.mlp_bias;
  AIRLLM_TRY(const bool qkv_bias, config.flag("add_qkv_bias", false));
  out.qkv_bias = qkv_bias || out.mlp_bias;
  AIRLLM_TRY(const bool has_final_norm, config.flag("post_layer_norm", true));
  if (!has_final_norm) out.names.final_norm = "";
  AIRLLM_TRY(const bool from_norm, config.flag("apply_residual_connection_post_layernorm", false));
  if (from_norm) out.residual = Residual::kFromNorm;
  return {};
}

// The small ones are rotated, and say max_position_embeddings; the large ones have slopes. The
// second generation divides the rows of its head by their norms.
Status read_baichuan(const ConfigReader& config, Architecture& out) {
  constexpr uint64_t kVocabularyOf2 = 125696;
  out.names.qkv = "self_attn.W_pack";
  out.alibi = !config.has("max_position_embeddings");
  AIRLLM_TRY_VOID(read_common(config, {.context = 4096, .is_rotated = !out.alibi}, out));
  if (out.alibi) {
    AIRLLM_TRY(out.context, config.size({"model_max_length"}, kMaxContext, 4096));
  }
  out.normalized_head = config.has("z_loss_weight") || out.vocabulary == kVocabularyOf2;
  return {};
}

Status read_internlm(const ConfigReader& config, Architecture& out) {
  Defaults defaults;
  AIRLLM_TRY(const ConfigReader rotary, config.inside("rotary"));
  AIRLLM_TRY(defaults.theta, rotary.positive({"base"}, defaults.theta));
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  return read_attention_biases(config, out, "bias", true);
}

Status read_internlm2(const ConfigReader& config, Architecture& out) {
  out.names.embedding = "model.tok_embeddings";
  out.names.head = "output";
  out.names.attention_norm = "attention_norm";
  out.names.qkv = "attention.wqkv";
  out.names.attention_out = "attention.wo";
  out.names.mlp_norm = "ffn_norm";
  out.names.gate = "feed_forward.w1";
  out.names.up = "feed_forward.w3";
  out.names.down = "feed_forward.w2";
  AIRLLM_TRY_VOID(read_common(config, {}, out));
  out.qkv_groups = out.kv_heads;
  return read_attention_biases(config, out, "bias", false);
}

// ---- DeepSeek and its kin ----

// Layers up to first_k_dense_replace have a plain MLP.
Status read_deepseek_experts(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_experts(config, {"moe_intermediate_size"}, out));
  AIRLLM_TRY(out.router.scale, config.positive({"routed_scaling_factor"}, 1));
  AIRLLM_TRY(const uint64_t shared, config.count({"n_shared_experts"}, kMaxExperts, 0));
  out.shared_width = shared * out.expert_width;
  AIRLLM_TRY(const uint64_t first, config.count({"first_k_dense_replace"}, kMaxLayers, 0));
  AIRLLM_TRY(const uint64_t every, config.size({"moe_layer_freq"}, kMaxLayers, 1));
  for (uint64_t i = 0; i < out.layers; ++i) {
    out.kinds[i].is_routed = i >= first && i % every == 0;
  }
  AIRLLM_TRY(out.next_token_layers, config.count({"num_nextn_predict_layers"}, kMaxLayers, 0));
  return {};
}

Status read_groups(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY(out.router.groups, config.size({"n_group"}, kMaxExperts, 1));
  AIRLLM_TRY(out.router.chosen_groups, config.size({"topk_group"}, kMaxExperts, 1));
  return {};
}

// Scores of stretched positions are larger.
Status scale_by_mscale(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY(const ConfigReader rope, read_rope_settings(config));
  AIRLLM_TRY(const double all, rope.number("mscale_all_dim", 0));
  AIRLLM_TRY(const double factor, rope.positive({"factor"}, 1));
  const double mscale = yarn_mscale(factor, all);
  for (LayerKind& kind : out.kinds) kind.scale *= mscale * mscale;
  return {};
}

Status read_latent_family(const ConfigReader& config, const Defaults& defaults, Architecture& out) {
  AIRLLM_TRY_VOID(read_common(config, defaults, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  out.head_norm.epsilon = 1e-6;  // of compressed rows, whatever the settings say
  return scale_by_mscale(config, out);
}

Status read_deepseek_v2(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(read_latent_family(config, {.interleaved = true, .is_latent = true}, out));
  AIRLLM_TRY(out.mlp_bias, config.flag("mlp_bias", false));
  AIRLLM_TRY(const std::string method, config.text({"topk_method"}, "greedy"));
  if (method == "group_limited_greedy") {
    AIRLLM_TRY_VOID(read_groups(config, out));
  } else if (method != "greedy") {
    return config.impossible("topk_method", "this choice of experts is not known here",
                             "known are: greedy, group_limited_greedy");
  }
  return read_deepseek_experts(config, out);
}

void route_as_deepseek_v3(Router& router) {
  router.score = Router::Score::kSigmoid;
  router.group_score = Router::GroupScore::kTwoBest;
  router.has_bias = true;
}

Status read_deepseek_v3(const ConfigReader& config, Architecture& out) {
  route_as_deepseek_v3(out.router);
  AIRLLM_TRY(const bool interleaved, config.flag("rope_interleave", true));
  AIRLLM_TRY_VOID(read_latent_family(
      config, {.context = 4096, .interleaved = interleaved, .is_latent = true}, out));
  AIRLLM_TRY_VOID(read_groups(config, out));
  AIRLLM_TRY(out.router.normalizes, config.flag("norm_topk_prob", true));
  return read_deepseek_experts(config, out);
}

Status read_glm4_moe(const ConfigReader& config, Architecture& out) {
  route_as_deepseek_v3(out.router);
  AIRLLM_TRY_VOID(
      read_common(config, {.context = 131072, .rotary_part = 0.5, .epsilon = 1e-5}, out));
  AIRLLM_TRY(out.qkv_bias, config.flag("attention_bias", false));
  AIRLLM_TRY(const bool normed, config.flag("use_qk_norm", false));
  if (normed) out.qk_norm = QkNorm::kHeads;
  AIRLLM_TRY_VOID(read_groups(config, out));
  AIRLLM_TRY(out.router.normalizes, config.flag("norm_topk_prob", true));
  return read_deepseek_experts(config, out);
}

Status read_dots1(const ConfigReader& config, Architecture& out) {
  route_as_deepseek_v3(out.router);
  out.qk_norm = QkNorm::kHeads;
  AIRLLM_TRY_VOID(read_common(config, {}, out));
  AIRLLM_TRY_VOID(read_attention_biases(config, out));
  AIRLLM_TRY_VOID(read_groups(config, out));
  AIRLLM_TRY(out.router.normalizes, config.flag("norm_topk_prob", false));
  AIRLLM_TRY_VOID(read_deepseek_experts(config, out));
  AIRLLM_TRY(const uint64_t window, read_window(config, 4096));
  AIRLLM_TRY(const uint64_t first, config.count({"max_window_layers"}, kMaxLayers, 62));
  return set_windows(
      config, window, [=](uint64_t layer) { return layer >= first; }, out);
}

Status read_minicpm3(const ConfigReader& config, Architecture& out) {
  AIRLLM_TRY_VOID(
      read_latent_family(config, {.context = 32768, .tied_head = true, .is_latent = true}, out));
  AIRLLM_TRY(out.mlp_bias, config.flag("mlp_bias", false));
  AIRLLM_TRY(out.embedding_scale, config.positive({"scale_emb"}, 1));
  AIRLLM_TRY(const double depth, config.positive({"scale_depth"}, 1.4));
  out.residual_scale = depth / std::sqrt(static_cast<double>(out.layers));
  AIRLLM_TRY(const double base, config.positive({"dim_model_base"}, 256));
  out.logit_scale = base / static_cast<double>(out.hidden);
  return {};
}

constexpr Family kFamilies[] = {
    {"apertus", read_apertus},
    {"arcee", read_arcee},
    {"baichuan", read_baichuan},
    {"bloom", read_bloom},
    {"chatglm", read_chatglm},
    {"codegen", read_codegen},
    {"cohere", read_cohere},
    {"cohere2", read_cohere2},
    {"dbrx", read_dbrx},
    {"deepseek_v2", read_deepseek_v2},
    {"deepseek_v3", read_deepseek_v3},
    {"dots1", read_dots1},
    {"ernie4_5", read_ernie4_5},
    {"ernie4_5_moe", read_ernie4_5_moe},
    {"exaone4", read_exaone4},
    {"falcon", read_falcon},
    {"gemma", read_gemma},
    {"gemma2", read_gemma2},
    {"gemma3_text", read_gemma3},
    {"glm", read_glm},
    {"glm4", read_glm4},
    {"glm4_moe", read_glm4_moe},
    {"gpt2", read_gpt2},
    {"gpt_bigcode", read_gpt_bigcode},
    {"gpt_neo", read_gpt_neo},
    {"gpt_neox", read_gpt_neox},
    {"gptj", read_gptj},
    {"granite", read_granite},
    {"granitemoe", read_granitemoe},
    {"helium", read_helium},
    {"hunyuan_v1_dense", read_hunyuan},
    {"hunyuan_v1_moe", read_hunyuan_moe},
    {"internlm", read_internlm},
    {"internlm2", read_internlm2},
    {"internlm3", read_internlm3},
    {"kimi_k2", read_deepseek_v3},
    {"llama", read_llama},
    {"minicpm3", read_minicpm3},
    {"mistral", read_mistral},
    {"mixtral", read_mixtral},
    {"mpt", read_mpt},
    {"nemotron", read_nemotron},
    {"olmo", read_olmo},
    {"olmo2", read_olmo2},
    {"olmo3", read_olmo3},
    {"olmoe", read_olmoe},
    {"opt", read_opt},
    {"persimmon", read_persimmon},
    {"phi", read_phi},
    {"phi3", read_phi3},
    {"phimoe", read_phimoe},
    {"qwen", read_qwen},
    {"qwen2", read_qwen2},
    {"qwen2_moe", read_qwen2_moe},
    {"qwen3", read_qwen3},
    {"qwen3_moe", read_qwen3_moe},
    {"seed_oss", read_seed_oss},
    {"smollm3", read_smollm3},
    {"stablelm", read_stablelm},
    {"starcoder2", read_starcoder2},
};

}  // namespace

const Family* find_family(std::string_view model_type) {
  const Family* const at =
      std::find_if(std::begin(kFamilies), std::end(kFamilies),
                   [&](const Family& family) { return family.model_type == model_type; });
  return at == std::end(kFamilies) ? nullptr : at;
}

std::string family_names() {
  std::string names;
  for (const Family& family : kFamilies) {
    names += (names.empty() ? "" : ", ") + std::string(family.model_type);
  }
  return names;
}

}  // namespace airllm::model

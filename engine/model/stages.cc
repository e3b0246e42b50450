#include "engine/model/stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace airllm::model {
namespace {

constexpr const char* kWeight = ".weight";
constexpr const char* kBias = ".bias";

std::string embedding_name(const Architecture& a) {
  return std::string(a.names.embedding) + kWeight;
}
std::string head_name(const Architecture& a) { return std::string(a.names.head) + kWeight; }

// Tensors and the steps that use them, in one go.
class Builder {
 public:
  Builder(const Architecture& architecture, StageSpec::Kind kind, uint64_t layer,
          std::string shard_name)
      : a_(architecture) {
    stage_.kind = kind;
    stage_.layer = layer;
    stage_.shard_name = std::move(shard_name);
  }

  // Of names that follow: what comes before them.
  void prefix(std::string prefix) { prefix_ = std::move(prefix); }

  Slice whole(Buffer buffer) const { return {buffer, 0, buffer_width(a_, buffer)}; }

  void lookup(const char* name, uint64_t rows, step::Lookup lookup) {
    const size_t tensor = add_tensor(std::string(name) + kWeight, {rows, lookup.to.width});
    step({lookup, tensor});
  }

  // Nothing when `name` is empty; a norm without a weight has a name all the same.
  void norm(const char* name, Slice from, Slice to, const Norm& norm) {
    if (*name == '\0') return;
    size_t tensor = Step::kNoTensor;
    if (norm.has_weight) tensor = add_tensor(std::string(name) + kWeight, {from.width});
    step({step::Normalize{from, to, norm}, tensor});
    if (norm.has_bias) bias(name, to);
  }

  // Of queries or keys, `heads` of them.
  void head_norm(const char* name, Slice at, uint64_t heads) {
    const uint64_t width = a_.head_dim;
    switch (a_.qk_norm) {
      case QkNorm::kNone: return;
      case QkNorm::kWhole: return norm(name, at, at, a_.head_norm);
      case QkNorm::kHeads: return normalize_heads(name, at, heads, {width});
      case QkNorm::kEachHead: return normalize_heads(name, at, heads, {heads, width});
      case QkNorm::kHeadByTensor:
        for (uint64_t h = 0; h < heads; ++h) {
          const Slice head{at.buffer, at.offset + h * width, width};
          norm(fmt::format("{}.norms.{}", name, h).c_str(), head, head, a_.head_norm);
        }
        return;
    }
  }

  // A linear layer, with its bias when it has one.
  void product(const char* name, Slice from, Slice to, bool has_bias, bool adds = false,
               bool normalizes_rows = false) {
    const size_t tensor = add_tensor(std::string(name) + kWeight, {to.width, from.width});
    stage_.tensors[tensor].is_transposed = a_.is_conv1d && stage_.kind == StageSpec::Kind::kLayer;
    step({step::Product{from, to, adds, normalizes_rows}, tensor});
    if (has_bias) bias(name, to);
  }

  // One expert's share of a tensor of all of them.
  void part_product(const std::string& name, Slice from, Slice to, TensorPart part,
                    bool is_transposed) {
    part.name = prefix_ + part.name;
    const size_t tensor = add_tensor(name, {to.width, from.width});
    stage_.tensors[tensor].part = std::move(part);
    stage_.tensors[tensor].is_transposed = is_transposed;
    step({step::Product{from, to}, tensor});
  }

  // A step that the tiles of the tensor with this whole name drive. Returns the tensor, which may
  // drive another.
  size_t driven_step(const std::string& name, std::vector<uint64_t> shape, Step step,
                     TensorPart part = {}) {
    step.tensor = add_tensor(name, std::move(shape));
    if (!part.name.empty()) part.name = prefix_ + part.name;
    stage_.tensors[step.tensor].part = std::move(part);
    const size_t tensor = step.tensor;
    this->step(std::move(step));
    return tensor;
  }

  // Steps from here on are of this expert.
  void expert(std::optional<uint32_t> expert) { expert_ = expert; }

  void borrowed_product(const std::string& tensor, Slice from, Slice to) {
    stage_.borrowed = tensor;
    step({step::Product{from, to}, Step::kBorrowed});
  }

  void bias(const char* name, Slice to, uint64_t groups = 1) {
    step({step::Bias{to, groups}, add_tensor(std::string(name) + kBias, {to.width / groups})});
  }

  void map(Slice to, kernels::Function function, double a, Slice factor = {}) {
    kernels::MapArgs args;
    args.function = function;
    args.a = static_cast<float>(a);
    step({step::Map{to, args, factor}});
  }

  void step(Step step) {
    step.expert = expert_;
    stage_.steps.push_back(std::move(step));
  }

  StageSpec take() { return std::move(stage_); }

 private:
  void normalize_heads(const char* name, Slice at, uint64_t heads, std::vector<uint64_t> shape) {
    const size_t tensor = add_tensor(std::string(name) + kWeight, std::move(shape));
    step({step::Normalize{at, at, a_.head_norm, heads}, tensor});
    if (a_.head_norm.has_bias) bias(name, at, heads);
  }

  size_t add_tensor(const std::string& name, std::vector<uint64_t> shape) {
    stage_.tensors.push_back({prefix_ + name, std::move(shape)});
    return stage_.tensors.size() - 1;
  }

  const Architecture& a_;
  StageSpec stage_;
  std::string prefix_;
  std::optional<uint32_t> expert_;
};

StageSpec embedding_stage(const Architecture& a) {
  Builder stage(a, StageSpec::Kind::kEmbedding, 0, "000-embedding");
  const Slice stream = stage.whole(Buffer::kStream);
  const bool is_narrow = a.embedding_width != 0;
  const Slice embedded = is_narrow ? stage.whole(Buffer::kNarrow) : stream;
  stage.lookup(a.names.embedding, a.vocabulary, {embedded});
  if (is_narrow) stage.product(a.names.project_in, embedded, stream, false);
  if (a.embedding_scale != 1) stage.map(stream, kernels::Function::kScale, a.embedding_scale);
  if (a.learned_positions > 0) {
    stage.lookup(a.names.positions, a.learned_positions, {stream, true, a.position_offset, true});
  }
  stage.norm(a.names.embedding_norm, stream, stream, a.norm);
  return stage.take();
}

// Where a part of a layer takes its input from, and how it ends up in the stream.
class LayerBuilder {
 public:
  LayerBuilder(const Architecture& a, uint64_t layer)
      : a_(a),
        kind_(a.kinds[layer]),
        is_last_(layer + 1 == a.layers),
        stage_(a, StageSpec::Kind::kLayer, layer,
               fmt::format("{:03}-layer-{:03}", layer + 1, layer)) {
    stage_.prefix(fmt::format(fmt::runtime(a.names.layer), layer));
  }

  StageSpec build() {
    const TensorNames& names = a_.names;
    const Slice stream = stage_.whole(Buffer::kStream);
    const Slice normed = stage_.whole(Buffer::kNormed);
    switch (a_.residual) {
      case Residual::kSequential:
        attention(normalized(names.attention_norm, normed), names.attention_out_norm);
        mlp(normalized(names.mlp_norm, normed), names.mlp_out_norm);
        break;
      case Residual::kParallel: {
        const Slice second = stage_.whole(Buffer::kSecond);
        const Slice from = normalized(names.attention_norm, normed);
        const Slice mlp_from = *names.mlp_norm == '\0' ? from : normalized(names.mlp_norm, second);
        attention(from, names.attention_out_norm);
        mlp(mlp_from, names.mlp_out_norm);
        break;
      }
      case Residual::kFromNorm:
        attention(normalized(names.attention_norm, stream), "");
        mlp(normalized(names.mlp_norm, stream), "");
        break;
      case Residual::kNormAfter:
        attention(stream, "");
        stage_.norm(names.attention_norm, stream, stream, a_.norm);
        mlp(stream, "");
        stage_.norm(names.mlp_norm, stream, stream, a_.norm);
        break;
    }
    return stage_.take();
  }

 private:
  // Where the normalised stream is; the stream itself when the family has no norm there.
  Slice normalized(const char* name, Slice to) {
    if (*name == '\0') return stage_.whole(Buffer::kStream);
    stage_.norm(name, stage_.whole(Buffer::kStream), to, a_.norm);
    return to;
  }

  void attention(Slice from, const char* out_norm) {
    if (a_.is_latent()) return latent_attention(from, out_norm);
    const TensorNames& names = a_.names;
    const Slice q{Buffer::kQkv, 0, a_.q_width()};
    const Slice k{Buffer::kQkv, q.width, a_.kv_width()};
    const Slice v{Buffer::kQkv, q.width + k.width, a_.kv_width()};
    if (*names.qkv == '\0') {
      stage_.product(names.q, from, q, a_.qkv_bias);
      stage_.product(names.k, from, k, a_.qkv_bias);
      stage_.product(names.v, from, v, a_.qkv_bias);
    } else if (a_.has_grouped_qkv()) {
      stage_.product(names.qkv, from, stage_.whole(Buffer::kFused), a_.qkv_bias);
      stage_.step({step::Ungroup{a_.qkv_groups, a_.values_before_keys}});
    } else {
      stage_.product(names.qkv, from, stage_.whole(Buffer::kQkv), a_.qkv_bias);
    }
    if (!a_.qk_norm_after_rope) normalize_heads(q, k);
    if (a_.qkv_clip > 0) {
      stage_.map(stage_.whole(Buffer::kQkv), kernels::Function::kClamp, a_.qkv_clip);
    }
    if (kind_.rope) {
      stage_.step({step::Rotate{q, a_.head_dim, *kind_.rope}});
      stage_.step({step::Rotate{k, a_.head_dim, *kind_.rope}});
    }
    if (a_.qk_norm_after_rope) normalize_heads(q, k);
    stage_.step({step::Attend{kind_, is_last_}});
    add_to_stream(names.attention_out, stage_.whole(Buffer::kMixed), a_.attention_out_bias,
                  out_norm);
  }

  void latent_attention(Slice from, const char* out_norm) {
    const TensorNames& names = a_.names;
    const Latent& latent = a_.latent;
    const Slice raw = stage_.whole(Buffer::kRawQuery);
    if (latent.q_rank == 0) {
      stage_.product(names.q, from, raw, false);
    } else {
      const Slice low = stage_.whole(Buffer::kLowQuery);
      stage_.product(names.q_low, from, low, a_.qkv_bias);
      stage_.norm(names.q_low_norm, low, low, a_.head_norm);
      stage_.product(names.q_high, low, raw, false);
    }
    const Slice key = stage_.whole(Buffer::kKey);
    const Slice low{Buffer::kKey, 0, latent.kv_rank};
    stage_.product(names.kv_low, from, key, a_.qkv_bias);
    stage_.norm(names.kv_low_norm, low, low, a_.head_norm);
    stage_.step({step::Rotate{raw, latent.query_dim(), *kind_.rope, latent.nope_dim}});
    stage_.step({step::Rotate{
        {Buffer::kKey, latent.kv_rank, latent.rope_dim}, latent.rope_dim, *kind_.rope}});
    const std::string high = std::string(names.kv_high) + kWeight;
    const uint64_t rows = a_.heads * (latent.nope_dim + latent.value_dim);
    const size_t tensor = stage_.driven_step(high, {rows, latent.kv_rank}, {step::AbsorbKeys{}});
    stage_.step({step::Attend{kind_, is_last_}});
    stage_.step({step::ExpandValues{}, tensor});
    add_to_stream(names.attention_out, stage_.whole(Buffer::kValues), a_.attention_out_bias,
                  out_norm);
  }

  void normalize_heads(Slice q, Slice k) {
    stage_.head_norm(a_.names.q_norm, q, a_.heads);
    stage_.head_norm(a_.names.k_norm, k, a_.kv_heads);
  }

  void mlp(Slice from, const char* out_norm) {
    if (kind_.is_routed) return experts(from, out_norm);
    const TensorNames& names = a_.names;
    const Slice first{Buffer::kMlp, 0, a_.intermediate};
    if (!a_.gated) {
      stage_.product(names.up, from, first, a_.mlp_bias);
      if (a_.activation == kernels::Function::kXielu) load_xielu();
      stage_.map(first, a_.activation, 0);
    } else {
      gated(names.gate, names.up, names.gate_up, first,
            [&](const char* name, Slice to) { stage_.product(name, from, to, a_.mlp_bias); });
    }
    add_to_stream(names.down, first, a_.mlp_bias, out_norm);
  }

  void load_xielu() {
    using Which = step::LoadParameter::Which;
    const std::string at = a_.names.activation;
    stage_.driven_step(at + "alpha_p", {1}, {step::LoadParameter{Which::kAlphaPositive}});
    stage_.driven_step(at + "alpha_n", {1}, {step::LoadParameter{Which::kAlphaNegative}});
    // Numbers without a dimension, which shards keep as vectors.
    stage_.driven_step(at + "beta", {1}, {step::LoadParameter{Which::kBeta}},
                       TensorPart{at + "beta", {}, 0});
    stage_.driven_step(at + "eps", {1}, {step::LoadParameter{Which::kEpsilon}},
                       TensorPart{at + "eps", {}, 0});
  }

  // first = activation(gate(from)) * up(from). `product` makes the step of a weight by its name.
  template <typename Product>
  void gated(const char* gate, const char* up, const char* gate_up, Slice first,
             const Product& product) {
    const Slice second{first.buffer, first.width, first.width};
    if (*gate_up == '\0') {
      product(gate, first);
      product(up, second);
    } else {
      product(gate_up, Slice{first.buffer, 0, 2 * first.width});
    }
    stage_.map(first, a_.activation, 0, second);
  }

  void experts(Slice from, const char* out_norm) {
    const TensorNames& names = a_.names;
    const Slice branch = stage_.whole(Buffer::kBranch);
    stage_.product(names.router, from, stage_.whole(Buffer::kRouter), false);
    if (a_.router.has_bias) {
      std::vector<uint64_t> shape(a_.router_bias_rank, 1);
      shape.back() = a_.router.experts;
      stage_.driven_step(names.router_bias, std::move(shape), {step::LoadRouterBias{}});
    }
    stage_.step({step::Route{}});
    for (uint32_t e = 0; e < a_.router.experts; ++e) {
      stage_.expert(e);
      stage_.step({step::Gather{from}});
      expert(e);
      stage_.step({step::Scatter{}});
    }
    stage_.expert(std::nullopt);
    if (a_.shared_width > 0) shared_expert(from, branch);
    add_branch(out_norm);
  }

  // kExpertOut = the expert's MLP of kExpertIn
  void expert(uint32_t e) {
    const TensorNames& names = a_.names;
    const Slice first{Buffer::kMlp, 0, a_.expert_width};
    const auto product = [&](const char* name, Slice from, Slice to, bool is_last) {
      if (a_.expert_layout != ExpertLayout::kEach) return expert_part(name, e, from, to, is_last);
      const std::string at = fmt::format(fmt::runtime(names.expert), e);
      stage_.product((at + name).c_str(), from, to, false);
    };
    gated(names.expert_gate, names.expert_up, names.expert_gate_up, first,
          [&](const char* name, Slice to) {
            product(name, stage_.whole(Buffer::kExpertIn), to, false);
          });
    product(names.expert_down, first, stage_.whole(Buffer::kExpertOut), true);
  }

  // A product with the expert's share of a tensor of all experts.
  void expert_part(const std::string& name, uint32_t e, Slice from, Slice to, bool is_last) {
    const bool is_flat = a_.expert_layout == ExpertLayout::kFlat;
    TensorPart whole{name + (is_flat ? "" : kWeight), {a_.router.experts, to.width, from.width}, e};
    if (is_flat) whole.shape = {a_.router.experts * a_.expert_width, a_.hidden};
    stage_.part_product(fmt::format("{}.{}{}", name, e, kWeight), from, to, std::move(whole),
                        is_flat && is_last);
  }

  void shared_expert(Slice from, Slice branch) {
    const TensorNames& names = a_.names;
    const Slice first{Buffer::kMlp, 0, a_.shared_width};
    const auto product = [&](const char* name, Slice in, Slice to, bool adds) {
      stage_.product((std::string(names.shared) + name).c_str(), in, to, a_.mlp_bias, adds);
    };
    gated(names.expert_gate, names.expert_up, "", first,
          [&](const char* name, Slice to) { product(name, from, to, false); });
    if (*names.shared_gate == '\0') return product(names.expert_down, first, branch, true);
    const Slice out = stage_.whole(Buffer::kExpertOut);
    product(names.expert_down, first, out, false);
    stage_.product(names.shared_gate, from, stage_.whole(Buffer::kSharedGate), false);
    stage_.step({step::AddGated{out, branch}});
  }

  // stream += residual_scale * norm(product), with what of that the family has.
  void add_to_stream(const char* name, Slice from, bool bias, const char* out_norm) {
    const Slice stream = stage_.whole(Buffer::kStream);
    if (*out_norm == '\0' && a_.residual_scale == 1) {
      stage_.product(name, from, stream, bias, true);
      return;
    }
    stage_.product(name, from, stage_.whole(Buffer::kBranch), bias);
    add_branch(out_norm);
  }

  void add_branch(const char* out_norm) {
    const Slice branch = stage_.whole(Buffer::kBranch);
    stage_.norm(out_norm, branch, branch, a_.norm);
    stage_.step(
        {step::Add{branch, stage_.whole(Buffer::kStream), static_cast<float>(a_.residual_scale)}});
  }

  const Architecture& a_;
  const LayerKind& kind_;
  bool is_last_;
  Builder stage_;
};

StageSpec head_stage(const Architecture& a) {
  Builder stage(a, StageSpec::Kind::kHead, 0, fmt::format("{:03}-head", a.layers + 1));
  const Slice normed = stage.whole(Buffer::kNormed);
  const Slice logits = stage.whole(Buffer::kLogits);
  Slice from = stage.whole(Buffer::kStream);
  stage.norm(a.names.final_norm, from, normed, a.norm);
  if (*a.names.final_norm != '\0') from = normed;
  if (a.embedding_width != 0) {
    const Slice narrow = stage.whole(Buffer::kNarrow);
    stage.product(a.names.project_out, from, narrow, false);
    from = narrow;
  }
  if (a.tied_head) {
    stage.borrowed_product(embedding_name(a), from, logits);
  } else {
    stage.product(a.names.head, from, logits, false, false, a.normalized_head);
  }
  if (a.head_bias) stage.bias(a.names.head, logits);
  if (a.logit_scale != 1) stage.map(logits, kernels::Function::kScale, a.logit_scale);
  if (a.logit_soft_cap > 0) stage.map(logits, kernels::Function::kSoftCap, a.logit_soft_cap);
  return stage.take();
}

}  // namespace

uint64_t buffer_width(const Architecture& a, Buffer buffer) {
  const Latent& latent = a.latent;
  const bool has_experts = a.router.experts > 0;
  const bool has_second = a.residual == Residual::kParallel && *a.names.mlp_norm != '\0';
  const bool has_branch = *a.names.attention_out_norm != '\0' || *a.names.mlp_out_norm != '\0' ||
                          a.residual_scale != 1 || has_experts;
  switch (buffer) {
    case Buffer::kStream:
    case Buffer::kNormed: return a.hidden;
    case Buffer::kSecond: return has_second ? a.hidden : 0;
    case Buffer::kBranch: return has_branch ? a.hidden : 0;
    case Buffer::kQkv: return a.is_latent() ? 0 : a.qkv_width();
    case Buffer::kFused: return a.has_grouped_qkv() ? a.qkv_width() : 0;
    case Buffer::kMixed: return a.is_latent() ? a.heads * latent.kv_rank : a.q_width();
    case Buffer::kRawQuery: return a.heads * latent.query_dim();
    case Buffer::kLowQuery: return latent.q_rank;
    case Buffer::kQuery: return a.is_latent() ? a.q_width() : 0;
    case Buffer::kKey: return a.is_latent() ? a.head_dim : 0;
    case Buffer::kValues: return a.heads * latent.value_dim;
    case Buffer::kMlp:
      return (a.gated ? 2 : 1) * std::max({a.intermediate, a.expert_width, a.shared_width});
    case Buffer::kRouter: return a.router.experts;
    case Buffer::kExpertIn:
    case Buffer::kExpertOut: return has_experts ? a.hidden : 0;
    case Buffer::kSharedGate: return *a.names.shared_gate != '\0' ? 1 : 0;
    case Buffer::kNarrow: return a.embedding_width;
    case Buffer::kLogits: return a.vocabulary;
  }
  AIRLLM_CHECK(false);
}

std::vector<StageSpec> stages(const Architecture& a) {
  AIRLLM_CHECK(a.kinds.size() == a.layers);
  std::vector<StageSpec> out;
  out.reserve(a.layers + 2);
  out.push_back(embedding_stage(a));
  for (uint64_t layer = 0; layer < a.layers; ++layer) out.push_back(LayerBuilder(a, layer).build());
  out.push_back(head_stage(a));
  return out;
}

std::vector<std::string> spellings(const Architecture& a, const std::string& name) {
  std::vector<std::string> out{name};
  const std::string_view base = a.names.base;
  if (!base.empty() && name.starts_with(base)) out.push_back(name.substr(base.size()));
  return out;
}

bool is_ignorable_tensor(const Architecture& a, const std::string& name) {
  // Frequencies, and the causal masks that old code kept with the weights.
  for (const char* end :
       {".rotary_emb.inv_freq", ".rotary_pos_emb.inv_freq", ".attn.bias", ".attn.masked_bias",
        ".attention.bias", ".attention.masked_bias", ".attn.causal_mask"}) {
    if (name.ends_with(end)) return true;
  }
  // Layers behind the last, which predict further tokens.
  const std::string_view pattern = a.names.layer;
  const std::string_view prefix = pattern.substr(0, pattern.find('{'));
  if (a.next_token_layers > 0 && name.starts_with(prefix)) {
    uint64_t layer = 0;
    const auto [end, error] =
        std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
    if (error == std::errc() && *end == '.' && layer >= a.layers &&
        layer - a.layers < a.next_token_layers) {
      return true;
    }
  }
  if (a.next_token_layers > 0 && name.find(".mtp_") != std::string::npos) return true;
  return a.tied_head && name == head_name(a);
}

}  // namespace airllm::model

#include "engine/model/stages.h"

#include <fmt/format.h>

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
  void product(const char* name, Slice from, Slice to, bool has_bias, bool adds = false) {
    const size_t tensor = add_tensor(std::string(name) + kWeight, {to.width, from.width});
    stage_.tensors[tensor].is_transposed = a_.is_conv1d && stage_.kind == StageSpec::Kind::kLayer;
    step({step::Product{from, to, adds}, tensor});
    if (has_bias) bias(name, to);
  }

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

  void step(Step step) { stage_.steps.push_back(std::move(step)); }

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
    const TensorNames& names = a_.names;
    const Slice q{Buffer::kQkv, 0, a_.q_width()};
    const Slice k{Buffer::kQkv, q.width, a_.kv_width()};
    const Slice v{Buffer::kQkv, q.width + k.width, a_.kv_width()};
    if (*names.qkv == '\0') {
      stage_.product(names.q, from, q, a_.qkv_bias);
      stage_.product(names.k, from, k, a_.qkv_bias);
      stage_.product(names.v, from, v, a_.qkv_bias);
    } else if (a_.qkv_groups == 1 && !a_.values_before_keys) {
      stage_.product(names.qkv, from, stage_.whole(Buffer::kQkv), a_.qkv_bias);
    } else {
      stage_.product(names.qkv, from, stage_.whole(Buffer::kFused), a_.qkv_bias);
      stage_.step({step::Ungroup{a_.qkv_groups, a_.values_before_keys}});
    }
    if (!a_.qk_norm_after_rope) normalize_heads(q, k);
    if (a_.qkv_clip > 0) {
      stage_.map(stage_.whole(Buffer::kQkv), kernels::Function::kClamp, a_.qkv_clip);
    }
    if (kind_.rope) {
      stage_.step({step::Rotate{q, *kind_.rope}});
      stage_.step({step::Rotate{k, *kind_.rope}});
    }
    if (a_.qk_norm_after_rope) normalize_heads(q, k);
    stage_.step({step::Attend{kind_}});
    add_to_stream(names.attention_out, stage_.whole(Buffer::kMixed), a_.attention_out_bias,
                  out_norm);
  }

  void normalize_heads(Slice q, Slice k) {
    stage_.head_norm(a_.names.q_norm, q, a_.heads);
    stage_.head_norm(a_.names.k_norm, k, a_.kv_heads);
  }

  void mlp(Slice from, const char* out_norm) {
    const TensorNames& names = a_.names;
    const Slice first{Buffer::kMlp, 0, a_.intermediate};
    const Slice second{Buffer::kMlp, a_.intermediate, a_.intermediate};
    if (!a_.gated) {
      stage_.product(names.up, from, first, a_.mlp_bias);
      stage_.map(first, a_.activation, 0);
    } else {
      if (*names.gate_up != '\0') {
        stage_.product(names.gate_up, from, stage_.whole(Buffer::kMlp), a_.mlp_bias);
      } else {
        stage_.product(names.gate, from, first, a_.mlp_bias);
        stage_.product(names.up, from, second, a_.mlp_bias);
      }
      stage_.map(first, a_.activation, 0, second);
    }
    add_to_stream(names.down, first, a_.mlp_bias, out_norm);
  }

  // stream += residual_scale * norm(product), with what of that the family has.
  void add_to_stream(const char* name, Slice from, bool bias, const char* out_norm) {
    const Slice stream = stage_.whole(Buffer::kStream);
    if (*out_norm == '\0' && a_.residual_scale == 1) {
      stage_.product(name, from, stream, bias, true);
      return;
    }
    const Slice branch = stage_.whole(Buffer::kBranch);
    stage_.product(name, from, branch, bias);
    stage_.norm(out_norm, branch, branch, a_.norm);
    stage_.step({step::Add{branch, stream, static_cast<float>(a_.residual_scale)}});
  }

  const Architecture& a_;
  const LayerKind& kind_;
  Builder stage_;
};

StageSpec head_stage(const Architecture& a) {
  Builder stage(a, StageSpec::Kind::kHead, 0, fmt::format("{:03}-head", a.layers + 1));
  const Slice normed = stage.whole(Buffer::kNormed);
  const Slice logits = stage.whole(Buffer::kLogits);
  stage.step({step::KeepLogits{stage.whole(Buffer::kStream), normed}});
  stage.norm(a.names.final_norm, normed, normed, a.norm);
  Slice from = normed;
  if (a.embedding_width != 0) {
    from = stage.whole(Buffer::kNarrow);
    stage.product(a.names.project_out, normed, from, false);
  }
  if (a.tied_head) {
    stage.borrowed_product(embedding_name(a), from, logits);
    if (a.head_bias) stage.bias(a.names.head, logits);
  } else {
    stage.product(a.names.head, from, logits, a.head_bias);
  }
  if (a.logit_scale != 1) stage.map(logits, kernels::Function::kScale, a.logit_scale);
  if (a.logit_soft_cap > 0) stage.map(logits, kernels::Function::kSoftCap, a.logit_soft_cap);
  return stage.take();
}

}  // namespace

uint64_t buffer_width(const Architecture& a, Buffer buffer) {
  const bool has_second = a.residual == Residual::kParallel && *a.names.mlp_norm != '\0';
  const bool has_branch =
      *a.names.attention_out_norm != '\0' || *a.names.mlp_out_norm != '\0' || a.residual_scale != 1;
  const bool is_grouped = *a.names.qkv != '\0' && (a.qkv_groups > 1 || a.values_before_keys);
  switch (buffer) {
    case Buffer::kStream:
    case Buffer::kNormed: return a.hidden;
    case Buffer::kSecond: return has_second ? a.hidden : 0;
    case Buffer::kBranch: return has_branch ? a.hidden : 0;
    case Buffer::kQkv: return a.qkv_width();
    case Buffer::kFused: return is_grouped ? a.qkv_width() : 0;
    case Buffer::kMixed: return a.q_width();
    case Buffer::kMlp: return a.gated ? 2 * a.intermediate : a.intermediate;
    case Buffer::kNarrow: return a.embedding_width;
    case Buffer::kLogits: return a.vocabulary;
  }
  AIRLLM_CHECK(false);
}

std::vector<StageSpec> stages(const Architecture& a) {
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
  for (const char* end : {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias",
                          ".attention.bias", ".attention.masked_bias", ".attn.causal_mask"}) {
    if (name.ends_with(end)) return true;
  }
  return a.tied_head && name == head_name(a);
}

}  // namespace airllm::model

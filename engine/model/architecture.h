// Architecture: a model family as data. There is one forward pass, and it reads this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/backend.h"

namespace airllm::model {

// How rotary positions are stretched beyond the length that a model was trained on.
struct RopeScaling {
  enum class Kind : uint8_t { kNone, kLinear, kDynamic, kLlama3, kYarn, kLongrope };
  Kind kind = Kind::kNone;
  double factor = 1;
  uint64_t original_context = 0;
  // llama3
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  // yarn: turns within the original context from which on a frequency stays, or is divided
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;  // the range between them to whole numbers
  // longrope: each frequency is divided by its own; [dim / 2]
  std::vector<double> short_factors;
  std::vector<double> long_factors;  // of sequences longer than original_context
  // yarn, longrope: multiplies sine and cosine
  double attention_factor = 1;
  double long_attention_factor = 1;  // longrope, where long_factors hold
};

struct Rope {
  double theta = 10000;
  uint64_t dim = 0;          // numbers of a head that are rotated, its first; even
  bool is_odd = false;       // frequencies are spread over dim - 1, which makes as many pairs
  bool interleaved = false;  // pairs are neighbours
  RopeScaling scaling;

  uint64_t spread() const { return is_odd ? dim - 1 : dim; }
};

struct Norm {
  kernels::NormArgs::Kind kind = kernels::NormArgs::Kind::kRms;
  double epsilon = 1e-5;
  bool has_weight = true;
  bool has_bias = false;
  double weight_offset = 0;  // added to the weight
};

// Queries, keys and values out of compressed rows (arXiv 2405.04434). Keys and values are kept
// compressed, [kv_rank], with the one rotated part that all heads share, [rope_dim].
struct Latent {
  uint64_t kv_rank = 0;   // 0: attention is not latent
  uint64_t q_rank = 0;    // 0: queries are not compressed
  uint64_t nope_dim = 0;  // of a query or key head, not rotated
  uint64_t rope_dim = 0;  // of a query or key head, rotated
  uint64_t value_dim = 0;

  uint64_t query_dim() const { return nope_dim + rope_dim; }
};

// How a mixture of experts chooses among them.
struct Router {
  enum class Score : uint8_t {
    kSoftmax,
    kSigmoid,
    kSparseMixer,  // arXiv 2409.12136: the best, then the best of the others, each by a softmax
                   // over those that are near it
  };
  enum class GroupScore : uint8_t { kBest, kTwoBest };

  uint64_t experts = 0;  // 0: there are none
  uint64_t chosen = 0;   // of each row
  Score score = Score::kSoftmax;
  double nearness = 0;  // kSparseMixer
  // Only the experts of the best groups are chosen from.
  uint64_t groups = 1;
  uint64_t chosen_groups = 1;
  GroupScore group_score = GroupScore::kBest;
  bool has_bias = false;    // added to scores for choosing alone
  bool normalizes = false;  // weights are divided by their sum, or by their norm:
  double norm_power = 1;
  double scale = 1;  // of weights
};

// How queries and keys are normalised before attention.
enum class QkNorm : uint8_t {
  kNone,
  kHeads,         // each head by itself, all with one weight [head_dim]
  kEachHead,      // each head by itself, with a weight of its own: [heads, head_dim]
  kHeadByTensor,  // the same with a tensor [head_dim] for each head
  kWhole,         // all heads together: [heads * head_dim]
};

// How a layer's two parts, attention and MLP, meet the residual stream x.
enum class Residual : uint8_t {
  kSequential,  // x += attention(norm(x)), then x += mlp(norm(x))
  kParallel,    // x += attention(norm(x)) + mlp(norm(x)), both of the same x
  kFromNorm,    // n = norm(x), x = n + attention(n), and the same with the MLP
  kNormAfter,   // x = norm(x + attention(x)), and the same with the MLP
};

// What layers differ in.
struct LayerKind {
  std::optional<size_t> rope;  // index into Architecture::ropes; none: heads are not rotated
  uint64_t window = 0;         // positions that a row attends to, itself the last; 0: all
  double scale = 0;            // of scores
  bool is_routed = false;      // its MLP is a mixture of experts
};

// The tensors' names in checkpoints, without ".weight" and ".bias". "" where there is none; that is
// how a family says that it has no such part. Those from attention_norm on belong to a layer and
// follow its prefix.
struct TensorNames {
  const char* base = "model.";  // what checkpoints of the bare model leave out
  const char* embedding = "model.embed_tokens";
  const char* positions = "";  // learned positions
  const char* embedding_norm = "";
  const char* project_in = "";  // from embedding_width to hidden
  const char* final_norm = "model.norm";
  const char* project_out = "";
  const char* head = "lm_head";
  const char* layer = "model.layers.{}.";

  const char* attention_norm = "input_layernorm";
  const char* attention_out_norm = "";  // of attention's output
  const char* q = "self_attn.q_proj";
  const char* k = "self_attn.k_proj";
  const char* v = "self_attn.v_proj";
  const char* qkv = "";  // instead of the three
  const char* q_norm = "self_attn.q_norm";
  const char* k_norm = "self_attn.k_norm";
  const char* attention_out = "self_attn.o_proj";
  const char* mlp_norm = "post_attention_layernorm";
  const char* mlp_out_norm = "";
  const char* gate = "mlp.gate_proj";
  const char* up = "mlp.up_proj";
  const char* gate_up = "";  // instead of the two
  const char* down = "mlp.down_proj";
  const char* activation = "";  // before alpha_p, alpha_n, beta and eps, of xIELU

  // latent attention
  const char* q_low = "self_attn.q_a_proj";
  const char* q_low_norm = "self_attn.q_a_layernorm";
  const char* q_high = "self_attn.q_b_proj";
  const char* kv_low = "self_attn.kv_a_proj_with_mqa";
  const char* kv_low_norm = "self_attn.kv_a_layernorm";
  const char* kv_high = "self_attn.kv_b_proj";

  const char* router = "mlp.gate";
  const char* router_bias = "mlp.gate.e_score_correction_bias";  // the whole name
  // Of each expert: what comes before the next three; or whole names of tensors of all of them.
  const char* expert = "mlp.experts.{}.";
  const char* expert_gate = "gate_proj";
  const char* expert_up = "up_proj";
  const char* expert_gate_up = "";  // instead of the two
  const char* expert_down = "down_proj";
  const char* shared = "mlp.shared_experts.";  // before gate_proj, up_proj, down_proj
  const char* shared_gate = "";                // makes a factor of the shared expert's output
};

// How checkpoints keep the weights of the experts of a layer.
enum class ExpertLayout : uint8_t {
  kEach,     // each expert's for themselves
  kStacked,  // [experts, out, in]
  kFlat,     // [experts * width, hidden], w2 too, which is used as its transpose
};

struct Architecture {
  std::string family;  // model_type of config.json, such as "llama"
  TensorNames names;
  uint64_t layers = 0;
  uint64_t hidden = 0;        // width of the residual stream
  uint64_t heads = 0;         // of queries
  uint64_t kv_heads = 0;      // divides heads
  uint64_t head_dim = 0;      // of queries, keys and values
  uint64_t intermediate = 0;  // width inside the MLP
  uint64_t vocabulary = 0;
  uint64_t context = 0;            // max_position_embeddings
  uint64_t next_token_layers = 0;  // behind the last, in checkpoints; not used

  Norm norm;
  Residual residual = Residual::kSequential;
  double residual_scale = 1;  // of what is added to the stream

  uint64_t embedding_width = 0;  // 0: hidden
  double embedding_scale = 1;
  uint64_t learned_positions = 0;  // rows of names.positions
  uint64_t position_offset = 0;    // of position 0 among them

  std::vector<Rope> ropes;
  std::vector<LayerKind> kinds;  // [layers]
  // Of names.qkv: in how many groups its rows come, each the queries, keys and values of as many
  // heads; 1: all queries, all keys, all values.
  uint64_t qkv_groups = 1;
  bool values_before_keys = false;  // in each group
  bool qkv_bias = false;
  bool attention_out_bias = false;
  double qkv_clip = 0;  // queries, keys and values stay within ± this; 0: no limit
  QkNorm qk_norm = QkNorm::kNone;
  Norm head_norm;  // of queries and keys
  bool qk_norm_after_rope = false;
  double attention_soft_cap = 0;  // 0: none
  bool alibi = false;
  bool alibi_of_falcon = false;  // AttentionArgs::bf16_biases
  bool is_conv1d = false;        // checkpoints have the layers' weights as [in, out]

  bool gated = true;  // down(activation(gate(x)) * up(x)); else down(activation(up(x)))
  kernels::Function activation = kernels::Function::kSilu;
  bool mlp_bias = false;  // of the shared expert, too

  Latent latent;
  Router router;
  uint64_t expert_width = 0;
  uint64_t shared_width = 0;  // 0: no shared expert
  ExpertLayout expert_layout = ExpertLayout::kEach;
  uint64_t router_bias_rank = 1;  // [experts], or [1, experts]

  bool tied_head = false;  // the head is the embedding
  bool head_bias = false;
  bool normalized_head = false;  // each row of the head's weight is divided by its norm
  double logit_scale = 1;
  double logit_soft_cap = 0;  // 0: none

  std::vector<int32_t> end_tokens;  // eos_token_id of config.json
  std::optional<int32_t> begin_token;

  bool is_latent() const { return latent.kv_rank > 0; }
  // Whether names.qkv gives queries, keys and values in another order than they are used in.
  bool has_grouped_qkv() const {
    return *names.qkv != '\0' && (qkv_groups > 1 || values_before_keys);
  }
  uint64_t q_width() const { return heads * head_dim; }
  uint64_t kv_width() const { return kv_heads * head_dim; }
  uint64_t qkv_width() const { return q_width() + 2 * kv_width(); }
};

// From config.json. A missing or impossible setting, and what this program does not know (a family,
// an activation, a rotary scaling), is a kData error that names the key and its value.
Result<Architecture> parse_config(std::string_view config_json, std::string_view what);

// Radians per position of each rotary pair, scaling applied, in a sequence of `length` positions;
// [dim / 2].
std::vector<float> inverse_frequencies(const Rope& rope, uint64_t length);
// What sine and cosine are multiplied by.
double attention_factor(const Rope& rope, uint64_t length);
// Whether the two depend on the length.
bool depends_on_length(const Rope& rope);
// Whether sequences of both lengths are rotated alike. When a sequence grows from one that is not,
// what was computed of it does not hold any more: transformers' result for it, too, is that of a
// fresh pass over all of it.
bool are_rotated_alike(const Architecture& architecture, uint64_t length, uint64_t other);

// The slope of each head's bias (ALiBi, arXiv 2108.12409); [heads].
std::vector<float> alibi_slopes(uint64_t heads);

}  // namespace airllm::model

// Architecture: a model family as data. There is one forward pass, and it reads this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::model {

// How rotary positions are stretched beyond the length that a model was trained on.
struct RopeScaling {
  enum class Kind { kNone, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  uint64_t original_context = 0;
};

struct Architecture {
  std::string family;  // model_type of config.json, such as "llama"
  uint64_t layers = 0;
  uint64_t hidden = 0;        // width of the residual stream
  uint64_t heads = 0;         // of queries
  uint64_t kv_heads = 0;      // divides heads
  uint64_t head_dim = 0;      // of queries, keys and values
  uint64_t intermediate = 0;  // width inside the MLP
  uint64_t vocabulary = 0;
  uint64_t context = 0;  // max_position_embeddings
  double norm_epsilon = 1e-5;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tied_head = false;  // the head is the embedding
  bool attention_qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;

  std::vector<int32_t> end_tokens;  // eos_token_id of config.json
  std::optional<int32_t> begin_token;

  uint64_t q_width() const { return heads * head_dim; }
  uint64_t kv_width() const { return kv_heads * head_dim; }
};

// From config.json. A missing or impossible setting, and what this program does not know (a family,
// an activation, a rotary scaling), is a kData error that names the key and its value.
Result<Architecture> parse_config(std::string_view config_json, std::string_view what);

// Radians per position of rotary pair i, scaling applied; [head_dim / 2].
std::vector<float> inverse_frequencies(const Architecture& architecture);

}  // namespace airllm::model

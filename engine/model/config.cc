// config.json of Hugging Face checkpoints as an Architecture.
#include <cmath>
#include <initializer_list>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/model/architecture.h"

namespace airllm::model {
namespace {

// Far above every model there is, and low enough that products of three of them fit 64 bits.
constexpr uint64_t kMaxLayers = 4096;
constexpr uint64_t kMaxHeads = 1 << 16;
constexpr uint64_t kMaxHeadDim = 1 << 14;
constexpr uint64_t kMaxWidth = 1 << 24;
constexpr uint64_t kMaxVocabulary = 1 << 26;
constexpr uint64_t kMaxContext = uint64_t{1} << 31;

// One object of the file, read key by key. A key that is there with null counts as absent.
class Reader {
 public:
  Reader(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  const Json* find(const char* key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  Unexpected impossible(const char* key, const std::string& why, std::string remedy = {}) const {
    const Json* value = find(key);
    std::string shown = value ? dump_json(*value) : "missing";
    if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
    return Unexpected(ErrorCode::kData,
                      what_ + ": " + key + " is " + escape_for_display(shown, true) + ": " + why,
                      std::move(remedy));
  }

  // An integer from 1 to `max`.
  Result<uint64_t> size(const char* key, uint64_t max,
                        std::optional<uint64_t> fallback = std::nullopt) const {
    const Json* value = find(key);
    if (!value && fallback) return *fallback;
    if (!value) return Unexpected(ErrorCode::kData, what_ + ": " + key + " is missing");
    if (!value->is_number_unsigned() || value->get<uint64_t>() == 0 ||
        value->get<uint64_t>() > max) {
      return impossible(key, "not a whole number from 1 to " + std::to_string(max));
    }
    return value->get<uint64_t>();
  }

  // A finite number above zero.
  Result<double> positive(const char* key, std::optional<double> fallback = std::nullopt) const {
    const Json* value = find(key);
    if (!value && fallback) return *fallback;
    if (!value) return Unexpected(ErrorCode::kData, what_ + ": " + key + " is missing");
    const double number = value->is_number() ? value->get<double>() : 0;
    if (!std::isfinite(number) || number <= 0) return impossible(key, "not a number above 0");
    return number;
  }

  Result<bool> flag(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) return impossible(key, "not true or false");
    return value->get<bool>();
  }

  Result<std::string> text(const char* key, const char* fallback) const {
    const Json* value = find(key);
    if (!value) return std::string(fallback);
    if (!value->is_string()) return impossible(key, "not a string");
    return value->get<std::string>();
  }

  // The object at `key`, or nothing when it is absent.
  Result<const Json*> object(const char* key) const {
    const Json* value = find(key);
    if (value && !value->is_object()) return impossible(key, "not an object");
    return value;
  }

  const std::string& what() const { return what_; }

 private:
  const Json& object_;
  std::string what_;
};

// Token ids outside the vocabulary can never be generated and are left out, as are negative ones
// (-1 says "none" in some checkpoints).
Result<std::vector<int32_t>> token_ids(const Reader& reader, const char* key, uint64_t vocabulary) {
  std::vector<int32_t> ids;
  const Json* value = reader.find(key);
  if (!value) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& item : list) {
    if (!item.is_number_integer())
      return reader.impossible(key, "not a token id or a list of them");
    if (item.is_number_unsigned() && item.get<uint64_t>() < vocabulary) {
      ids.push_back(static_cast<int32_t>(item.get<uint64_t>()));
    }
  }
  return ids;
}

Status read_sizes(const Reader& reader, Architecture& out) {
  AIRLLM_TRY(out.layers, reader.size("num_hidden_layers", kMaxLayers));
  AIRLLM_TRY(out.hidden, reader.size("hidden_size", kMaxWidth));
  AIRLLM_TRY(out.intermediate, reader.size("intermediate_size", kMaxWidth));
  AIRLLM_TRY(out.heads, reader.size("num_attention_heads", kMaxHeads));
  AIRLLM_TRY(out.kv_heads, reader.size("num_key_value_heads", kMaxHeads, out.heads));
  AIRLLM_TRY(out.vocabulary, reader.size("vocab_size", kMaxVocabulary));
  AIRLLM_TRY(out.context, reader.size("max_position_embeddings", kMaxContext, 2048));
  if (out.heads % out.kv_heads != 0) {
    return reader.impossible("num_key_value_heads",
                             "does not divide num_attention_heads, " + std::to_string(out.heads));
  }
  if (!reader.find("head_dim") && out.hidden % out.heads != 0) {
    return reader.impossible("num_attention_heads",
                             "does not divide hidden_size, " + std::to_string(out.hidden));
  }
  AIRLLM_TRY(out.head_dim, reader.size("head_dim", kMaxHeadDim, out.hidden / out.heads));
  if (out.head_dim % 2 != 0 || out.head_dim > kMaxHeadDim) {
    return reader.impossible(
        reader.find("head_dim") ? "head_dim" : "num_attention_heads",
        "a head of width " + std::to_string(out.head_dim) + " cannot be rotated in pairs");
  }
  if (out.q_width() > kMaxWidth) {
    return reader.impossible(
        "num_attention_heads",
        "times the head's width, " + std::to_string(out.head_dim) + ", is too large");
  }
  return {};
}

Result<RopeScaling> read_llama3_scaling(const Reader& rope, const Reader& reader) {
  RopeScaling scaling;
  scaling.kind = RopeScaling::Kind::kLlama3;
  AIRLLM_TRY(scaling.factor, rope.positive("factor"));
  AIRLLM_TRY(scaling.low_frequency_factor, rope.positive("low_freq_factor"));
  AIRLLM_TRY(scaling.high_frequency_factor, rope.positive("high_freq_factor"));
  const char* key = "original_max_position_embeddings";
  const Reader& holder = rope.find(key) ? rope : reader.find(key) ? reader : rope;
  AIRLLM_TRY(scaling.original_context, holder.size(key, kMaxContext));
  if (scaling.factor < 1) return rope.impossible("factor", "below 1");
  if (scaling.high_frequency_factor <= scaling.low_frequency_factor) {
    return rope.impossible("high_freq_factor", "not above low_freq_factor");
  }
  return scaling;
}

// Two spellings: rope_theta beside rope_scaling, and (newer) everything inside rope_parameters.
// rope_scaling wins over rope_parameters, as in transformers.
Status read_rope(const Reader& reader, Architecture& out) {
  AIRLLM_TRY(out.rope_theta, reader.positive("rope_theta", 10000.0));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    AIRLLM_TRY(const Json* object, reader.object(key));
    if (!object) continue;
    const Reader rope(*object, reader.what() + ": " + key);
    AIRLLM_TRY(out.rope_theta, rope.positive("rope_theta", out.rope_theta));
    const char* type_key = rope.find("rope_type") ? "rope_type" : "type";
    AIRLLM_TRY(const std::string type, rope.text(type_key, "default"));
    if (type == "llama3") {
      AIRLLM_TRY(out.rope_scaling, read_llama3_scaling(rope, reader));
    } else if (type != "default") {
      return rope.impossible(type_key, "this rotary scaling is not known here",
                             "known are \"default\" and \"llama3\"");
    }
    if (object->size() > 0) break;
  }
  return {};
}

// Settings that would change the result and that the forward pass does not know.
Status refuse_unknown(const Reader& reader) {
  AIRLLM_TRY(const std::string activation, reader.text("hidden_act", "silu"));
  if (activation != "silu" && activation != "swish") {
    return reader.impossible("hidden_act", "this activation is not known here",
                             "known is \"silu\"");
  }
  if (reader.find("quantization_config")) {
    return reader.impossible("quantization_config", "quantized checkpoints cannot be used",
                             "use the checkpoint in f32, f16 or bf16");
  }
  AIRLLM_TRY(const double rotated, reader.positive("partial_rotary_factor", 1.0));
  if (rotated != 1.0) {
    return reader.impossible("partial_rotary_factor", "heads rotated in part are not known here");
  }
  return {};
}

Status read_llama(const Reader& reader, Architecture& out) {
  AIRLLM_TRY_VOID(refuse_unknown(reader));
  AIRLLM_TRY_VOID(read_sizes(reader, out));
  AIRLLM_TRY(out.norm_epsilon, reader.positive("rms_norm_eps", 1e-6));
  AIRLLM_TRY_VOID(read_rope(reader, out));
  AIRLLM_TRY(out.tied_head, reader.flag("tie_word_embeddings", false));
  AIRLLM_TRY(out.attention_qkv_bias, reader.flag("attention_bias", false));
  out.attention_out_bias = out.attention_qkv_bias;
  AIRLLM_TRY(out.mlp_bias, reader.flag("mlp_bias", false));
  AIRLLM_TRY(out.end_tokens, token_ids(reader, "eos_token_id", out.vocabulary));
  AIRLLM_TRY(const std::vector<int32_t> begin, token_ids(reader, "bos_token_id", out.vocabulary));
  if (!begin.empty()) out.begin_token = begin.front();
  return {};
}

}  // namespace

Result<Architecture> parse_config(std::string_view config_json, std::string_view what) {
  AIRLLM_TRY(const Json root, parse_json_object(config_json, what));
  const Reader reader(root, std::string(what));
  Architecture out;
  AIRLLM_TRY(out.family, reader.text("model_type", ""));
  if (out.family != "llama") {
    return reader.impossible("model_type", "this model family is not known here",
                             "known is \"llama\"");
  }
  AIRLLM_TRY_VOID(read_llama(reader, out));
  return out;
}

}  // namespace airllm::model

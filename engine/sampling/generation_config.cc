#include "engine/sampling/generation_config.h"

#include <cmath>
#include <string>

#include "base/checked.h"
#include "base/json.h"

namespace airllm::sampling {
namespace {

// Reads members of the file's object; a member that is absent or null counts as unset.
class Reader {
 public:
  Reader(const Json& object, std::string_view what) : object_(object), what_(what) {}

  Result<bool> flag(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_boolean()) return wrong(key, "true or false");
    return value->get<bool>();
  }

  Result<std::optional<double>> number(const char* key, double low, double high,
                                       const char* expected) const {
    using Number = std::optional<double>;
    const Json* value = find(key);
    if (value == nullptr) return Number();
    if (!value->is_number()) return wrong(key, expected);
    const auto result = value->get<double>();
    if (!(result >= low && result <= high)) return wrong(key, expected);
    return Number(result);
  }

  Result<std::optional<int64_t>> integer(const char* key, int64_t low, int64_t high,
                                         const char* expected) const {
    using Integer = std::optional<int64_t>;
    const Json* value = find(key);
    if (value == nullptr) return Integer();
    AIRLLM_TRY(const int64_t result, integer_of(*value, key, low, high, expected));
    return Integer(result);
  }

  // One token id or a list of them.
  Result<std::vector<int32_t>> token_ids(const char* key) const {
    constexpr const char* kExpected = "a token id or a list of token ids";
    std::vector<int32_t> ids;
    const Json* value = find(key);
    if (value == nullptr) return ids;
    const auto add = [&](const Json& element) -> Status {
      AIRLLM_TRY(const int64_t id, integer_of(element, key, 0, INT32_MAX, kExpected));
      ids.push_back(static_cast<int32_t>(id));
      return {};
    };
    if (!value->is_array()) {
      AIRLLM_TRY_VOID(add(*value));
      return ids;
    }
    for (const Json& element : *value) AIRLLM_TRY_VOID(add(element));
    return ids;
  }

 private:
  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  Result<int64_t> integer_of(const Json& value, const char* key, int64_t low, int64_t high,
                             const char* expected) const {
    if (!value.is_number_integer()) return wrong(key, expected);
    if (value.is_number_unsigned() && !checked_cast<int64_t>(value.get<uint64_t>()).has_value()) {
      return wrong(key, expected);
    }
    const auto result = value.get<int64_t>();
    if (result < low || result > high) return wrong(key, expected);
    return result;
  }

  Unexpected wrong(const char* key, const char* expected) const {
    return Unexpected(ErrorCode::kData, std::string(what_) + ": \"" + key + "\" is not " + expected,
                      "correct or remove this entry of the file");
  }

  const Json& object_;
  std::string_view what_;
};

}  // namespace

Result<GenerationConfig> parse_generation_config(std::string_view json, std::string_view what) {
  AIRLLM_TRY(const Json object, parse_json_object(json, what));
  const Reader reader(object, what);
  GenerationConfig config;
  AIRLLM_TRY(config.end_tokens, reader.token_ids("eos_token_id"));
  AIRLLM_TRY(config.repetition_penalty,
             reader.number("repetition_penalty", 1e-6, 1e6, "a number above 0"));
  AIRLLM_TRY(config.temperature, reader.number("temperature", 0, 1e6, "a number from 0"));
  AIRLLM_TRY(config.top_p, reader.number("top_p", 0, 1, "a number from 0 to 1"));
  AIRLLM_TRY(config.min_p, reader.number("min_p", 0, 1, "a number from 0 to 1"));
  AIRLLM_TRY(config.top_k, reader.integer("top_k", 0, INT32_MAX, "a whole number from 0"));
  AIRLLM_TRY(const bool do_sample, reader.flag("do_sample"));
  if (!do_sample) {
    config.temperature = 0;
    config.top_k.reset();
    config.top_p.reset();
    config.min_p.reset();
  } else if (!config.temperature.has_value()) {
    // What transformers samples with when the file asks for sampling and says no more.
    config.temperature = 1;
  }
  return config;
}

}  // namespace airllm::sampling

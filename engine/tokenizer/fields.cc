#include "engine/tokenizer/fields.h"

#include "base/json.h"
#include "base/utf8.h"

namespace airllm::tokenizer {

const Json* Fields::find(std::string_view key) const {
  if (!json_.is_object()) return nullptr;
  const auto it = json_.find(std::string(key));
  return it == json_.end() || it->is_null() ? nullptr : &*it;
}

Unexpected Fields::wrong(std::string_view key, std::string_view expected) const {
  return Unexpected(ErrorCode::kData,
                    where_ + ": \"" + std::string(key) + "\" is not " + std::string(expected));
}

Unexpected Fields::unknown(std::string_view type) const {
  return Unexpected(
      ErrorCode::kData,
      where_ + ": '" + escape_for_display(type.substr(0, 80), true) + "' is not supported",
      "this model's tokenizer needs a newer airllm; prompts can be given as ids");
}

Result<std::string> Fields::string(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_string()) return wrong(key, "a string");
  return value->get<std::string>();
}

Result<std::string> Fields::string_or(std::string_view key, std::string_view fallback) const {
  if (find(key) == nullptr) return std::string(fallback);
  return string(key);
}

Result<bool> Fields::boolean_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return wrong(key, "true or false");
  return value->get<bool>();
}

Result<int64_t> Fields::integer(std::string_view key, int64_t low, int64_t high) const {
  const Json* value = find(key);
  const bool fits =
      value != nullptr && value->is_number_integer() &&
      !(value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX));
  if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    return wrong(key, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value->get<int64_t>();
}

Result<const Json*> Fields::array(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !value->is_array()) return wrong(key, "a list");
  return value;
}

}  // namespace airllm::tokenizer

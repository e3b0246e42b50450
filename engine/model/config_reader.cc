#include "engine/model/config_reader.h"

#include <cmath>

#include "base/utf8.h"

namespace airllm::model {

const Json* ConfigReader::find(const char* key) const {
  const auto at = object_->find(key);
  return at == object_->end() || at->is_null() ? nullptr : &*at;
}

bool ConfigReader::is_null(const char* key) const {
  const auto at = object_->find(key);
  return at != object_->end() && at->is_null();
}

const char* ConfigReader::spelling(Keys keys) const {
  for (const char* key : keys) {
    if (has(key)) return key;
  }
  return *keys.begin();
}

Unexpected ConfigReader::impossible(const char* key, const std::string& why,
                                    std::string remedy) const {
  const Json* value = find(key);
  std::string shown = value ? dump_json(*value) : "missing";
  if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
  return Unexpected(ErrorCode::kData,
                    what_ + ": " + key + " is " + escape_for_display(shown, true) + ": " + why,
                    std::move(remedy));
}

Result<uint64_t> ConfigReader::size(Keys keys, uint64_t max,
                                    std::optional<uint64_t> fallback) const {
  const char* key = spelling(keys);
  const Json* value = find(key);
  if (!value && fallback) return *fallback;
  if (!value) return Unexpected(ErrorCode::kData, what_ + ": " + key + " is missing");
  if (!value->is_number_unsigned() || value->get<uint64_t>() == 0 || value->get<uint64_t>() > max) {
    return impossible(key, "not a whole number from 1 to " + std::to_string(max));
  }
  return value->get<uint64_t>();
}

Result<uint64_t> ConfigReader::count(Keys keys, uint64_t max, uint64_t fallback) const {
  const char* key = spelling(keys);
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_number_unsigned() || value->get<uint64_t>() > max) {
    return impossible(key, "not a whole number from 0 to " + std::to_string(max));
  }
  return value->get<uint64_t>();
}

Result<double> ConfigReader::number(const char* key, double fallback) const {
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    return impossible(key, "not a number");
  }
  return value->get<double>();
}

Result<double> ConfigReader::positive(Keys keys, std::optional<double> fallback) const {
  const char* key = spelling(keys);
  const Json* value = find(key);
  if (!value && fallback) return *fallback;
  if (!value) return Unexpected(ErrorCode::kData, what_ + ": " + key + " is missing");
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!std::isfinite(number) || number <= 0) return impossible(key, "not a number above 0");
  return number;
}

Result<bool> ConfigReader::flag(const char* key, bool fallback) const {
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean()) return impossible(key, "not true or false");
  return value->get<bool>();
}

Result<std::string> ConfigReader::text(Keys keys, const char* fallback) const {
  const char* key = spelling(keys);
  const Json* value = find(key);
  if (!value) return std::string(fallback);
  if (!value->is_string()) return impossible(key, "not a string");
  return value->get<std::string>();
}

Result<ConfigReader> ConfigReader::inside(const char* key) const {
  static const Json nothing = Json::object();
  const Json* value = find(key);
  if (value && !value->is_object()) return impossible(key, "not an object");
  return ConfigReader(value ? *value : nothing, what_ + ": " + key);
}

Result<std::vector<double>> ConfigReader::positives(const char* key, size_t length) const {
  const Json* value = find(key);
  if (!value) return Unexpected(ErrorCode::kData, what_ + ": " + key + " is missing");
  const std::string wanted = "not a list of " + std::to_string(length) + " numbers above 0";
  if (!value->is_array() || value->size() != length) return impossible(key, wanted);
  std::vector<double> numbers;
  for (const Json& item : *value) {
    const double number = item.is_number() ? item.get<double>() : 0;
    if (!std::isfinite(number) || number <= 0) return impossible(key, wanted);
    numbers.push_back(number);
  }
  return numbers;
}

Result<std::vector<int32_t>> ConfigReader::token_ids(const char* key, uint64_t vocabulary) const {
  std::vector<int32_t> ids;
  const Json* value = find(key);
  if (!value) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& item : list) {
    if (!item.is_number_integer()) return impossible(key, "not a token id or a list of them");
    if (item.is_number_unsigned() && item.get<uint64_t>() < vocabulary) {
      ids.push_back(static_cast<int32_t>(item.get<uint64_t>()));
    }
  }
  return ids;
}

}  // namespace airllm::model

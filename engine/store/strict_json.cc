#include "engine/store/strict_json.h"

#include <algorithm>

#include "base/utf8.h"
#include "engine/store/hash.h"
#include "engine/store/manifest.h"

namespace airllm::store {

Status StrictObject::has_exactly(const std::vector<const char*>& keys) const {
  if (!object_.is_object()) return bad("not an object");
  for (const char* key : keys) {
    if (!object_.contains(key)) return bad(std::string(key) + " is missing");
  }
  for (const auto& item : object_.items()) {
    const std::string& key = item.key();
    const bool known =
        std::any_of(keys.begin(), keys.end(), [&](const char* name) { return key == name; });
    if (!known) return bad("unknown key '" + escape_for_display(key.substr(0, 80), true) + "'");
  }
  return {};
}

Result<std::string> StrictObject::text(const char* key) const {
  const Json& value = object_.at(key);
  if (!value.is_string()) return bad(std::string(key) + " is not a string");
  return value.get<std::string>();
}

Result<uint64_t> StrictObject::number(const char* key) const {
  const Json& value = object_.at(key);
  if (!value.is_number_unsigned()) return bad(std::string(key) + " is not a whole number");
  return value.get<uint64_t>();
}

Result<bool> StrictObject::flag(const char* key) const {
  const Json& value = object_.at(key);
  if (!value.is_boolean()) return bad(std::string(key) + " is not true or false");
  return value.get<bool>();
}

Result<uint64_t> StrictObject::hash(const char* key) const {
  AIRLLM_TRY(const std::string digits, text(key));
  const auto value = parse_hash(digits);
  if (!value) return bad(std::string(key) + " is not 16 hexadecimal digits");
  return *value;
}

Result<std::string> StrictObject::file_name(const char* key) const {
  AIRLLM_TRY(std::string name, text(key));
  if (!is_plain_file_name(name)) return bad(std::string(key) + " is not a plain file name");
  return name;
}

Unexpected StrictObject::bad(const std::string& why) const {
  return Unexpected(ErrorCode::kData, what_ + ": " + why, kRepairRemedy);
}

}  // namespace airllm::store

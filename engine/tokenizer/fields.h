// Members of one component of tokenizer.json, with errors that name component and key.
#pragma once

#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::tokenizer {

// Borrows the JSON value, which need not be an object (then every required member is missing).
class Fields {
 public:
  // `where` names the component, such as "m/tokenizer.json: pre_tokenizer".
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  // Null when absent or null in the file.
  const Json* find(std::string_view key) const;
  Result<std::string> string(std::string_view key) const;
  Result<std::string> string_or(std::string_view key, std::string_view fallback) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<int64_t> integer(std::string_view key, int64_t low, int64_t high) const;
  // The array under `key`.
  Result<const Json*> array(std::string_view key) const;
  // The "type" of the component.
  Result<std::string> type() const { return string("type"); }

  const std::string& where() const { return where_; }
  Unexpected wrong(std::string_view key, std::string_view expected) const;
  // The error for a component of a kind that is not known here.
  Unexpected unknown(std::string_view type) const;

 private:
  const Json& json_;
  std::string where_;
};

}  // namespace airllm::tokenizer

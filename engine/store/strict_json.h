// Objects of the store's JSON files, which have exactly the keys that they should have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace airllm::store {

// Borrows the object. Every error is kData and begins with `what`.
class StrictObject {
 public:
  StrictObject(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  Status has_exactly(const std::vector<const char*>& keys) const;
  Result<std::string> text(const char* key) const;
  Result<uint64_t> number(const char* key) const;
  Result<bool> flag(const char* key) const;
  Result<uint64_t> hash(const char* key) const;
  Result<std::string> file_name(const char* key) const;  // is_plain_file_name()
  const Json& at(const char* key) const { return object_.at(key); }
  const std::string& what() const { return what_; }
  Unexpected bad(const std::string& why) const;

 private:
  const Json& object_;
  std::string what_;
};

template <typename T, typename ParseOne>
Result<std::vector<T>> parse_list(const Json& list, const std::string& what, ParseOne parse_one) {
  if (!list.is_array()) return Unexpected(ErrorCode::kData, what + " is not a list");
  std::vector<T> out;
  for (const Json& item : list) {
    AIRLLM_TRY(T one, parse_one(StrictObject(item, what + "[" + std::to_string(out.size()) + "]")));
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace airllm::store

// Reads settings out of config.json, with errors that name the key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace airllm::model {

// Several spellings of one setting; the first that is there counts.
using Keys = std::initializer_list<const char*>;

// One object of the file, read key by key. A key that is there with null counts as absent. Borrows
// the object.
class ConfigReader {
 public:
  ConfigReader(const Json& object, std::string what) : object_(&object), what_(std::move(what)) {}

  const Json* find(const char* key) const;
  bool has(const char* key) const { return find(key) != nullptr; }
  // Whether the key is there, with null.
  bool is_null(const char* key) const;
  // The spelling that is there; the first when none is.
  const char* spelling(Keys keys) const;

  Unexpected impossible(const char* key, const std::string& why, std::string remedy = {}) const;

  // An integer from 1 to `max`.
  Result<uint64_t> size(Keys keys, uint64_t max,
                        std::optional<uint64_t> fallback = std::nullopt) const;
  // The same from 0 on.
  Result<uint64_t> count(Keys keys, uint64_t max, uint64_t fallback) const;
  // A finite number.
  Result<double> number(const char* key, double fallback) const;
  // A finite number above zero.
  Result<double> positive(Keys keys, std::optional<double> fallback = std::nullopt) const;
  Result<bool> flag(const char* key, bool fallback) const;
  Result<std::string> text(Keys keys, const char* fallback) const;
  // Reads the object at `key`; an empty one when it is absent.
  Result<ConfigReader> inside(const char* key) const;
  // A list of `length` finite numbers above zero.
  Result<std::vector<double>> positives(const char* key, size_t length) const;
  // Token ids outside the vocabulary can never be generated and are left out, as are negative ones
  // (-1 says "none" in some checkpoints).
  Result<std::vector<int32_t>> token_ids(const char* key, uint64_t vocabulary) const;

  const Json& json() const { return *object_; }
  const std::string& what() const { return what_; }

 private:
  const Json* object_;
  std::string what_;
};

}  // namespace airllm::model

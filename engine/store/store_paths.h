// Where the parts of a store lie below its folder.
#pragma once

#include <algorithm>
#include <string>

namespace airllm::store {

struct StorePaths {
  std::string root;

  std::string lock() const { return root + "/lock"; }
  std::string models() const { return root + "/models"; }
  std::string incoming() const { return root + "/incoming"; }
  std::string model(const std::string& name) const { return models() + "/" + name; }
  // One flat folder per split under way: '+' is in no model's name.
  std::string incoming(std::string name) const {
    std::replace(name.begin(), name.end(), '/', '+');
    return incoming() + "/" + name;
  }
};

inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kJournalName = "state.json";
inline constexpr const char* kShardsName = "shards";

}  // namespace airllm::store

// Names of models: nearness, for suggestions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace airllm::store {

// Up to three of `names` that someone who typed `wanted` may have meant, the nearest first. Case
// and the part before the last '/' count little.
std::vector<std::string> near_names(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace airllm::store

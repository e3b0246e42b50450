// Names of models: which there may be, and nearness, for suggestions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace airllm::store {

// 1 to 128 of letters, digits, '.', '_', '-', and '/' between parts; no part begins with a dot.
// A hub id ("org/name") is a valid name.
bool is_valid_model_name(std::string_view name);

// Up to three of `names` that someone who typed `wanted` may have meant, the nearest first. Case
// and the part before the last '/' count little.
std::vector<std::string> near_names(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace airllm::store

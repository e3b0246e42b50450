// generation_config.json: the options that a model's authors recommend, and its end tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::sampling {

// Unset where the file is silent. As in transformers, temperature, top_k, top_p and min_p count
// only when do_sample is true; otherwise the temperature is 0.
struct GenerationConfig {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::vector<int32_t> end_tokens;  // eos_token_id: one or several
};

Result<GenerationConfig> parse_generation_config(std::string_view json, std::string_view what);

}  // namespace airllm::sampling

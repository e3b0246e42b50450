// Cutting a text at matches, in the five ways of Hugging Face tokenizers.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/tokenizer/regex.h"

namespace airllm::tokenizer {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

std::optional<SplitBehavior> split_behavior_from_name(std::string_view name);

// The pieces of a text of `size` bytes, cut at `matches` (in order, without overlap); with `invert`
// at what lies between them. Empty pieces are left out.
std::vector<Range> split_at_matches(size_t size, const std::vector<Range>& matches, bool invert,
                                    SplitBehavior behavior);

}  // namespace airllm::tokenizer

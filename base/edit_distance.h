// How far two words are apart, to suggest what a mistyped name meant.
#pragma once

#include <cstddef>
#include <string_view>

namespace airllm {

// Insertions, deletions and replacements of bytes that make `b` of `a` (Levenshtein).
// Time a.size() × b.size(): the caller limits the lengths.
size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace airllm

// What templates do to strings, with the origin of each byte kept.
#pragma once

#include "engine/text/marked_text.h"

namespace airllm::jinja {

// The first entry of what namespace() makes; no template can write this name.
inline constexpr const char* kNamespaceMark = "<namespace>";

// As Python's strip(), lstrip(), rstrip(): white space of Unicode.
text::MarkedText trim(const text::MarkedText& text, bool left, bool right);
// By code point: of the letters whose other case has several, only the sharp s changes as in
// Python.
text::MarkedText change_case(const text::MarkedText& text, bool upper);
size_t character_count(const text::MarkedText& text);
// The characters [begin, end), bounds past the end count as the end.
text::MarkedText characters(const text::MarkedText& text, size_t begin, size_t end);

}  // namespace airllm::jinja

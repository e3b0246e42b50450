// What templates do to strings, with the origin of each byte kept.
#pragma once

#include "engine/tokenizer/marked_text.h"

namespace airllm::tokenizer::jinja {

// The first entry of what namespace() makes; no template can write this name.
inline constexpr const char* kNamespaceMark = "<namespace>";

// As Python's strip(), lstrip(), rstrip(): white space of Unicode.
MarkedText trim(const MarkedText& text, bool left, bool right);
// By code point: of the letters whose other case has several, only the sharp s changes as in
// Python.
MarkedText change_case(const MarkedText& text, bool upper);
size_t character_count(const MarkedText& text);
// The characters [begin, end), bounds past the end count as the end.
MarkedText characters(const MarkedText& text, size_t begin, size_t end);

}  // namespace airllm::tokenizer::jinja

// UTF-8: strict validation, and text made safe to show.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace airllm {

inline constexpr size_t kValidUtf8 = static_cast<size_t>(-1);

// The byte offset of the first byte that does not belong to well-formed UTF-8 (no overlong forms,
// surrogates or code points above U+10FFFF), or kValidUtf8.
size_t find_invalid_utf8(std::string_view text);

// How many bytes at the end of `text` begin a UTF-8 character that is not complete yet (0 to 3).
// A streaming decoder holds these back.
size_t incomplete_utf8_suffix(std::string_view text);

// `text` with control characters (C0 but newline and tab, DEL, C1), invalid bytes, line and
// bidirectional controls written as \xNN or \u{NNNN}, so that a terminal or a log shows them
// instead of obeying them. With `escape_newlines`, newline and tab are escaped as well.
std::string escape_for_display(std::string_view text, bool escape_newlines = false);

// Appends the code point as UTF-8; surrogates and values out of range become U+FFFD.
void append_utf8(std::string& out, char32_t code_point);

}  // namespace airllm

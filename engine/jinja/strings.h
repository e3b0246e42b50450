// What Python does to strings, with the origin of each byte kept.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/marked_text.h"
#include "engine/text/unicode.h"

namespace airllm::jinja {

// What str knows of a character.
bool is_space(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alphanumeric(char32_t c);
bool is_printable(char32_t c);

// How many bytes of white space the text begins or ends with.
size_t spaces_at_begin(std::string_view text);
size_t spaces_at_end(std::string_view text);

// In linear time: the place of `needle` at or behind `from`, or npos.
size_t find_bytes(std::string_view text, std::string_view needle, size_t from);

// As Python's strip(), lstrip(), rstrip(): white space, or the characters that `chars` holds.
text::MarkedText trim(const text::MarkedText& text, bool left, bool right);
text::MarkedText trim(const text::MarkedText& text, bool left, bool right, std::string_view chars);
enum class Case { kUpper, kLower, kTitle, kCapitalize, kSwap, kFold };
text::MarkedText change_case(const text::MarkedText& text, Case to);
size_t character_count(const text::MarkedText& text);
// The characters [begin, end), bounds past the end count as the end.
text::MarkedText characters(const text::MarkedText& text, size_t begin, size_t end);
// As replace(); `count` < 0: all.
text::MarkedText replace(const text::MarkedText& text, std::string_view old,
                         const text::MarkedText& with, int64_t count);
// As split(sep, max); `max` < 0: no limit.
std::vector<text::MarkedText> split(const text::MarkedText& text, std::string_view separator,
                                    int64_t max);
std::vector<text::MarkedText> split_spaces(const text::MarkedText& text, int64_t max);
std::vector<text::MarkedText> split_right(const text::MarkedText& text, std::string_view separator,
                                          int64_t max);
std::vector<text::MarkedText> split_spaces_right(const text::MarkedText& text, int64_t max);
std::vector<text::MarkedText> split_lines(const text::MarkedText& text, bool keep_ends);
text::MarkedText escape_html(const text::MarkedText& text);

// Python's repr of a string and of a float; the marks of the string's parts are kept.
text::MarkedText quoted(const text::MarkedText& text);
std::string print_real(double value);
// Of JSON, in double quotes.
text::MarkedText json_string(const text::MarkedText& text, bool ascii);

}  // namespace airllm::jinja

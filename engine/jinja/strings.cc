#include "engine/jinja/strings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>

#include "base/utf8.h"

namespace airllm::jinja {
namespace {

struct Mapping {
  char32_t from;
  const char* to;
};
struct Range {
  char32_t first, last;
};
#include "engine/jinja/case_tables.inc"

template <size_t size>
bool in_ranges(const Range (&ranges)[size], char32_t c) {
  if (c < 0x80) {  // nearly all text; its ranges are the first few
    const Range* range = std::begin(ranges);
    while (range != std::end(ranges) && range->last < c) ++range;
    return range != std::end(ranges) && range->first <= c;
  }
  const Range* range =
      std::lower_bound(std::begin(ranges), std::end(ranges), c,
                       [](const Range& r, char32_t code) { return r.last < code; });
  return range != std::end(ranges) && range->first <= c;
}

template <size_t size>
void append_mapped(std::string& out, const Mapping (&mappings)[size], char32_t c) {
  const Mapping* mapping =
      std::lower_bound(std::begin(mappings), std::end(mappings), c,
                       [](const Mapping& m, char32_t code) { return m.from < code; });
  if (mapping != std::end(mappings) && mapping->from == c) {
    out += mapping->to;
  } else {
    append_utf8(out, c);
  }
}

// Whether the capital sigma before `after` and behind `before` ends its word.
bool is_final_sigma(std::string_view text, size_t before, size_t after) {
  bool cased_before = false;
  while (before > 0) {
    const char32_t c = text::previous_code_point(text, before);
    if (in_ranges(kIsCaseIgnorable, c)) continue;
    cased_before = in_ranges(kIsCased, c);
    break;
  }
  if (!cased_before) return false;
  while (after < text.size()) {
    const char32_t c = text::next_code_point(text, after);
    if (in_ranges(kIsCaseIgnorable, c)) continue;
    return !in_ranges(kIsCased, c);
  }
  return true;
}

void append_lower(std::string& out, std::string_view text, size_t begin, size_t end, char32_t c) {
  if (c == 0x3A3) {
    append_utf8(out, is_final_sigma(text, begin, end) ? 0x3C2 : 0x3C3);
  } else {
    append_mapped(out, kLower, c);
  }
}

bool is_line_break(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool holds(std::string_view characters, std::string_view character) {
  return characters.find(character) != std::string_view::npos;
}

}  // namespace

bool is_space(char32_t c) { return in_ranges(kIsSpace, c); }
bool is_lower(char32_t c) { return in_ranges(kIsLower, c); }
bool is_upper(char32_t c) { return in_ranges(kIsUpper, c); }
bool is_title(char32_t c) { return in_ranges(kIsTitle, c); }
bool is_alpha(char32_t c) { return in_ranges(kIsAlpha, c); }
bool is_decimal(char32_t c) { return in_ranges(kIsDecimal, c); }
bool is_digit(char32_t c) { return in_ranges(kIsDigit, c); }
bool is_numeric(char32_t c) { return in_ranges(kIsNumeric, c); }
bool is_alphanumeric(char32_t c) {
  return is_alpha(c) || is_decimal(c) || is_digit(c) || is_numeric(c);
}
bool is_printable(char32_t c) { return in_ranges(kIsPrintable, c); }

size_t spaces_at_begin(std::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    size_t next = begin;
    if (!is_space(text::next_code_point(text, next))) break;
    begin = next;
  }
  return begin;
}

size_t spaces_at_end(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t previous = end;
    if (!is_space(text::previous_code_point(text, previous))) break;
    end = previous;
  }
  return text.size() - end;
}

namespace {
constexpr size_t kSmallestWindow = 4096;
}  // namespace

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string::npos;
  if (needle.empty()) return from;
  if (needle.size() == 1) return text.find(needle.front(), from);
  // In windows, since a sanitizer's memmem looks at all that it is given at every call, which makes
  // a loop over many places take the square of the text's length.
  const size_t window = std::max(kSmallestWindow, 4 * needle.size());
  while (text.size() - from >= needle.size()) {
    const size_t length = std::min(window, text.size() - from);
    const void* found = memmem(text.data() + from, length, needle.data(), needle.size());
    if (found != nullptr) {
      return static_cast<size_t>(static_cast<const char*>(found) - text.data());
    }
    if (length == text.size() - from) break;
    from += length - (needle.size() - 1);
  }
  return std::string::npos;
}

text::MarkedText trim(const text::MarkedText& marked, bool left, bool right) {
  const std::string_view text(marked.text());
  const size_t begin = left ? spaces_at_begin(text) : 0;
  const size_t end = text.size() - (right ? spaces_at_end(text.substr(begin)) : 0);
  return marked.substr(begin, end);
}

text::MarkedText trim(const text::MarkedText& marked, bool left, bool right,
                      std::string_view chars) {
  const std::string_view text(marked.text());
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    text::next_code_point(text, next);
    if (!holds(chars, text.substr(begin, next - begin))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t previous = end;
    text::previous_code_point(text, previous);
    if (!holds(chars, text.substr(previous, end - previous))) break;
    end = previous;
  }
  return marked.substr(begin, end);
}

text::MarkedText change_case(const text::MarkedText& marked, Case to) {
  const std::string_view text(marked.text());
  bool in_word = false;
  return text::map_characters(marked, [&](std::string& out, size_t begin, size_t end, char32_t c) {
    switch (to) {
      case Case::kUpper: append_mapped(out, kUpper, c); break;
      case Case::kLower: append_lower(out, text, begin, end, c); break;
      case Case::kFold: append_mapped(out, kFold, c); break;
      case Case::kSwap:
        if (is_upper(c)) {
          append_lower(out, text, begin, end, c);
        } else if (is_lower(c)) {
          append_mapped(out, kUpper, c);
        } else {
          append_utf8(out, c);
        }
        break;
      case Case::kTitle:
      case Case::kCapitalize:
        if (in_word) {
          append_lower(out, text, begin, end, c);
        } else {
          append_mapped(out, kTitle, c);
        }
        in_word = to == Case::kCapitalize || is_lower(c) || is_upper(c) || is_title(c);
        break;
    }
  });
}

size_t character_count(const text::MarkedText& text) {
  size_t count = 0;
  for (const char c : text.text()) count += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  return count;
}

text::MarkedText characters(const text::MarkedText& marked, size_t begin, size_t end) {
  const std::string_view text(marked.text());
  size_t at = 0;
  size_t begin_byte = text.size();
  size_t index = 0;
  for (; at < text.size() && index < end; ++index) {
    if (index == begin) begin_byte = at;
    text::next_code_point(text, at);
  }
  return begin_byte < at ? marked.substr(begin_byte, at) : text::MarkedText();
}

text::MarkedText replace(const text::MarkedText& marked, std::string_view old,
                         const text::MarkedText& with, int64_t count) {
  const std::string_view text(marked.text());
  text::MarkedText result;
  size_t at = 0;
  size_t from = 0;
  for (; count != 0; --count) {
    const size_t found = find_bytes(text, old, from);
    if (found == std::string::npos) break;
    result.append_range(marked, at, found);
    result.append(with);
    at = found + old.size();
    from = at;
    if (!old.empty()) continue;
    if (at >= text.size()) break;
    text::next_code_point(text, from);
  }
  result.append_range(marked, at, text.size());
  return result;
}

std::vector<text::MarkedText> split(const text::MarkedText& marked, std::string_view separator,
                                    int64_t max) {
  std::vector<text::MarkedText> parts;
  size_t at = 0;
  for (; max != 0; --max) {
    const size_t found = find_bytes(marked.text(), separator, at);
    if (found == std::string::npos) break;
    parts.push_back(marked.substr(at, found));
    at = found + separator.size();
  }
  parts.push_back(marked.substr(at, marked.size()));
  return parts;
}

std::vector<text::MarkedText> split_spaces(const text::MarkedText& marked, int64_t max) {
  const std::string_view text(marked.text());
  std::vector<text::MarkedText> parts;
  size_t at = spaces_at_begin(text);
  while (at < text.size()) {
    if (max-- == 0) {
      // Only the white space in front of the rest goes.
      parts.push_back(marked.substr(at, text.size()));
      break;
    }
    const size_t begin = at;
    size_t end = at;
    while (at < text.size() && !is_space(text::next_code_point(text, at))) end = at;
    parts.push_back(marked.substr(begin, end));
    at = end + spaces_at_begin(text.substr(end));
  }
  return parts;
}

std::vector<text::MarkedText> split_right(const text::MarkedText& marked,
                                          std::string_view separator, int64_t max) {
  const std::string_view text(marked.text());
  std::vector<text::MarkedText> parts;
  size_t end = text.size();
  for (; max != 0; --max) {
    const size_t found =
        end < separator.size() ? std::string::npos : text.rfind(separator, end - separator.size());
    if (found == std::string::npos) break;
    parts.push_back(marked.substr(found + separator.size(), end));
    end = found;
  }
  parts.push_back(marked.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<text::MarkedText> split_spaces_right(const text::MarkedText& marked, int64_t max) {
  const std::string_view text(marked.text());
  std::vector<text::MarkedText> parts;
  size_t end = text.size() - spaces_at_end(text);
  while (end > 0) {
    if (max-- == 0) {
      parts.push_back(marked.substr(0, end));
      break;
    }
    size_t begin = end;
    size_t at = end;
    while (at > 0 && !is_space(text::previous_code_point(text, at))) begin = at;
    parts.push_back(marked.substr(begin, end));
    end = begin - spaces_at_end(text.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<text::MarkedText> split_lines(const text::MarkedText& marked, bool keep_ends) {
  const std::string_view text(marked.text());
  std::vector<text::MarkedText> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = text::next_code_point(text, at);
    if (!is_line_break(c)) {
      if (at == text.size()) lines.push_back(marked.substr(begin, at));
      continue;
    }
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(marked.substr(begin, keep_ends ? at : end));
    begin = at;
  }
  return lines;
}

text::MarkedText escape_html(const text::MarkedText& marked) {
  return text::map_characters(marked, [](std::string& out, size_t, size_t, char32_t c) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: append_utf8(out, c);
    }
  });
}

text::MarkedText quoted(const text::MarkedText& marked) {
  const std::string& text = marked.text();
  const bool has_single = text.find('\'') != std::string::npos;
  const char quote = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  text::MarkedText result(std::string(1, quote), 0);
  result.append(text::map_characters(marked, [&](std::string& out, size_t, size_t, char32_t c) {
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else if (c <= 0xFF) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c <= 0xFFFF) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }));
  result.append(std::string(1, quote), 0);
  return result;
}

std::string print_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[400];
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const char* end = std::to_chars(std::begin(buffer), std::end(buffer), value, format).ptr;
  std::string text(&buffer[0], static_cast<size_t>(end - &buffer[0]));
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

text::MarkedText json_string(const text::MarkedText& marked, bool ascii) {
  text::MarkedText result("\"", 0);
  result.append(text::map_characters(marked, [&](std::string& out, size_t, size_t, char32_t c) {
    static constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
    static constexpr std::string_view kNames = "\"\\nrtfb";
    const size_t known = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (known != std::string_view::npos) {
      out += '\\';
      out += kNames[known];
    } else if (c < 0x20 || (ascii && c >= 0x7F && c <= 0xFFFF && c != 0x7F)) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else if (ascii && c > 0xFFFF) {
      const auto high = static_cast<uint32_t>(0xD800 + ((c - 0x10000) >> 10));
      const auto low = static_cast<uint32_t>(0xDC00 + ((c - 0x10000) & 0x3FF));
      out += fmt::format("\\u{:04x}\\u{:04x}", high, low);
    } else {
      append_utf8(out, c);
    }
  }));
  result.append("\"", 0);
  return result;
}

}  // namespace airllm::jinja

#include "engine/jinja/strings.h"

#include <utf8proc.h>

#include "base/utf8.h"
#include "engine/text/unicode.h"

namespace airllm::jinja {
namespace {

// Python counts the four separators of ASCII as white space too.
bool is_python_space(char32_t c) { return text::is_space(c) || (c >= 0x1C && c <= 0x1F); }

void append_in_case(std::string& out, char32_t c, bool upper) {
  const auto code = static_cast<utf8proc_int32_t>(c);
  if (upper && c == U'\u00DF') {
    out += "SS";
  } else {
    append_utf8(out,
                static_cast<char32_t>(upper ? utf8proc_toupper(code) : utf8proc_tolower(code)));
  }
}

}  // namespace

text::MarkedText trim(const text::MarkedText& marked, bool left, bool right) {
  const std::string_view text(marked.text());
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!is_python_space(text::next_code_point(text, next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t previous = end;
    if (!is_python_space(text::previous_code_point(text, previous))) break;
    end = previous;
  }
  return marked.substr(begin, end);
}

text::MarkedText change_case(const text::MarkedText& marked, bool upper) {
  const std::string_view text(marked.text());
  text::MarkedText result;
  size_t at = 0;
  for (const text::MarkedText::Run& run : marked.runs()) {
    std::string changed;
    while (at < run.end) {
      append_in_case(changed, text::next_code_point(text, at), upper);
    }
    result.append(changed, run.origin);
  }
  return result;
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

}  // namespace airllm::jinja

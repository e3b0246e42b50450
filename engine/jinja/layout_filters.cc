#include "engine/jinja/layout_filters.h"

#include <algorithm>

#include "engine/jinja/pretty_print.h"
#include "engine/jinja/strings.h"

namespace airllm::jinja {
namespace {

using Text = text::MarkedText;

// ---- Python's textwrap -------------------------------------------------------------------------

// One line without its end, as characters.
class Wrapper {
 public:
  struct Style {
    int64_t width = 79;
    bool break_long_words = true;
    bool break_on_hyphens = true;  // in long words
    bool split_on_hyphens = true;  // between chunks
  };

  Wrapper(const Text& line, const Style& style) : line_(line), style_(style) {
    for (size_t at = 0; at < line.size();) {
      places_.push_back(at);
      characters_.push_back(text::next_code_point(line.text(), at));
    }
    places_.push_back(line.size());
  }

  // TextWrapper.wrap() with white space dropped at the ends of lines, and kept as it is elsewhere.
  std::vector<Text> wrap() {
    split();
    std::vector<Text> lines;
    for (size_t next = 0; next < chunks_.size();) {
      if (!lines.empty() && is_blank(chunks_[next])) ++next;
      std::vector<Chunk> row;
      int64_t length = 0;
      for (; next < chunks_.size() && length + chunks_[next].size() <= style_.width; ++next) {
        row.push_back(chunks_[next]);
        length += chunks_[next].size();
      }
      if (next < chunks_.size() && chunks_[next].size() > style_.width) {
        if (take_long_word(chunks_[next], row, style_.width - length)) ++next;
      }
      if (!row.empty() && is_blank(row.back())) row.pop_back();
      if (row.empty()) continue;
      Text text;
      for (const Chunk& chunk : row) {
        text.append_range(line_, places_[chunk.begin], places_[chunk.end]);
      }
      lines.push_back(std::move(text));
    }
    return lines;
  }

 private:
  struct Chunk {
    size_t begin, end;  // characters
    int64_t size() const { return static_cast<int64_t>(end - begin); }
  };

  static bool is_gap(char32_t c) { return c == U' ' || (c >= U'\t' && c <= U'\r'); }
  static bool is_word(char32_t c) { return is_alphanumeric(c) || c == U'_'; }
  static bool is_letter(char32_t c) { return is_word(c) && !is_decimal(c); }
  static bool ends_word(char32_t c) {
    return is_word(c) || std::u32string_view(U"!\"'&.,?").find(c) != std::u32string_view::npos;
  }
  bool letter_at(size_t at) const { return at < characters_.size() && is_letter(characters_[at]); }
  bool hyphen_at(size_t at) const { return at < characters_.size() && characters_[at] == U'-'; }

  bool is_blank(const Chunk& chunk) const {
    return std::all_of(characters_.begin() + static_cast<std::ptrdiff_t>(chunk.begin),
                       characters_.begin() + static_cast<std::ptrdiff_t>(chunk.end), is_space);
  }

  // The end of an em-dash at `at` ("--" or more, between words); `at` when there is none.
  size_t dash_end(size_t at) const {
    size_t end = at;
    if (at == 0 || !ends_word(characters_[at - 1])) return at;
    while (hyphen_at(end)) ++end;
    return end >= at + 2 && end < characters_.size() && is_word(characters_[end]) ? end : at;
  }

  // Whether a word may be divided behind the hyphen at `at`.
  bool divides(size_t at) const {
    if (!hyphen_at(at) || at < 2 || !letter_at(at - 1)) return false;
    const bool behind = letter_at(at - 2) || (at >= 3 && hyphen_at(at - 2) && letter_at(at - 3));
    return behind && letter_at(at + 1) &&
           (letter_at(at + 2) || (hyphen_at(at + 2) && letter_at(at + 3)));
  }

  size_t chunk_end(size_t begin) const {
    size_t at = begin;
    if (is_gap(characters_[begin])) {
      while (at < characters_.size() && is_gap(characters_[at])) ++at;
      return at;
    }
    if (style_.split_on_hyphens && dash_end(begin) != begin) return dash_end(begin);
    for (at = begin + 1; at < characters_.size() && !is_gap(characters_[at]); ++at) {
      if (!style_.split_on_hyphens) continue;
      if (divides(at)) return at + 1;
      if (dash_end(at) != at) return at;
    }
    return at;
  }

  void split() {
    for (size_t at = 0; at < characters_.size();) {
      chunks_.push_back({at, chunk_end(at)});
      at = chunks_.back().end;
    }
  }

  // Puts what fits of a chunk that is longer than any line into the row. Whether all of it went.
  bool take_long_word(Chunk& chunk, std::vector<Chunk>& row, int64_t room) const {
    if (!style_.break_long_words) {
      if (!row.empty()) return false;
      row.push_back(chunk);
      return true;
    }
    size_t end = chunk.begin + static_cast<size_t>(room);
    if (style_.break_on_hyphens && chunk.size() > room) {
      size_t hyphen = end;
      while (hyphen > chunk.begin && !hyphen_at(hyphen - 1)) --hyphen;
      size_t begin = chunk.begin;
      while (begin + 1 < hyphen && hyphen_at(begin)) ++begin;
      if (begin + 1 < hyphen) end = hyphen;
    }
    row.push_back({chunk.begin, end});
    chunk.begin = end;
    return chunk.begin == chunk.end;
  }

  const Text& line_;
  const Style& style_;
  std::vector<char32_t> characters_;
  std::vector<size_t> places_;  // of their first bytes, and of the end
  std::vector<Chunk> chunks_;
};

bool is_attribute_break(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == '/' || c == '>' || c == '=';
}

}  // namespace

Result<Value> pretty_print(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "pprint", std::move(call), {}, 0));
  AIRLLM_TRY(Text text, pretty(ev, value));
  return ev.make_text(std::move(text));
}

Result<Value> word_wrap(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given,
             bind(ev, "wordwrap", std::move(call),
                  {"width", "break_long_words", "wrapstring", "break_on_hyphens"}, 0));
  if (value.is_undefined()) return ev.error(value.undefined_message());
  if (value.as_string() == nullptr) return ev.error("wordwrap needs a string");
  Wrapper::Style style;
  AIRLLM_TRY(style.width, integer_argument(ev, given[0].value_or(Value::integer(79))));
  if (given[1].has_value()) style.break_long_words = given[1]->truth();
  if (given[3].has_value()) {
    style.break_on_hyphens = given[3]->truth();
    style.split_on_hyphens = given[3]->as_boolean() != nullptr && *given[3]->as_boolean();
  }
  Text separator("\n", kTemplateOrigin);
  if (given[2].has_value() && !given[2]->is_none()) {
    if (given[2]->as_string() == nullptr) return ev.error("wordwrap needs a string between lines");
    if (given[2]->is_markup()) return ev.error("wrapping by escaped text is not supported");
    separator = *given[2]->as_string();
  }
  AIRLLM_TRY_VOID(ev.charge(16 * value.as_string()->size()));  // what it is cut up into
  Text result;
  bool first = true;
  for (const Text& line : split_lines(*value.as_string(), false)) {
    if (style.width <= 0) return ev.error("wordwrap needs a width of at least 1");
    std::vector<Text> rows = Wrapper(line, style).wrap();
    if (rows.empty()) rows.emplace_back();
    for (const Text& row : rows) {
      AIRLLM_TRY_VOID(ev.charge(separator.size() + row.size()));
      if (!std::exchange(first, false)) result.append(separator);
      result.append(row);
    }
  }
  return Value::string(std::move(result));
}

Result<Value> xml_attributes(Evaluator& ev, const Value& value, Call call) {
  AIRLLM_TRY(const auto given, bind(ev, "xmlattr", std::move(call), {"autospace"}, 0));
  if (value.is_undefined()) return ev.error(value.undefined_message());
  if (value.as_dict() == nullptr) return ev.error("xmlattr needs a mapping");
  const bool space_in_front = !given[0].has_value() || given[0]->truth();
  Text result;
  for (const auto& [key, content] : value.as_dict()->entries()) {
    if (content.is_none() || content.is_undefined()) continue;
    if (key.as_string() == nullptr) return ev.error("an attribute's name is a string");
    const std::string& name = key.as_string()->text();
    if (std::any_of(name.begin(), name.end(), is_attribute_break))
      return ev.error("an attribute's name has a character that cannot be in one");
    AIRLLM_TRY(const Text text, ev.to_text(content));
    AIRLLM_TRY_VOID(ev.charge(6 * (text.size() + name.size()) + 4));
    if (space_in_front || !result.empty()) result.append(" ", kTemplateOrigin);
    result.append(key.is_markup() ? *key.as_string() : escape_html(*key.as_string()));
    result.append("=\"", kTemplateOrigin);
    result.append(content.is_markup() ? text : escape_html(text));
    result.append("\"", kTemplateOrigin);
  }
  return Value::string(std::move(result));
}

}  // namespace airllm::jinja

// Text whose bytes remember which part of the input they stem from, so that what a user wrote stays
// known as such through templates and normalisation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/unicode.h"

namespace airllm::text {

// The origin of text from a user, and of text that mixes parts.
inline constexpr int32_t kUserOrigin = -1;

class MarkedText {
 public:
  // Bytes up to `end` (and from the end of the run before) stem from `origin`.
  struct Run {
    size_t end;
    int32_t origin;
  };

  MarkedText() = default;
  MarkedText(std::string_view text, int32_t origin) { append(text, origin); }

  const std::string& text() const { return text_; }
  const std::vector<Run>& runs() const { return runs_; }  // in order; neighbours differ
  bool empty() const { return text_.empty(); }
  size_t size() const { return text_.size(); }

  void append(std::string_view text, int32_t origin);
  void append(const MarkedText& other) { append_range(other, 0, other.size()); }
  // Bytes [begin, end) of `other` with their origins.
  void append_range(const MarkedText& other, size_t begin, size_t end);
  MarkedText substr(size_t begin, size_t end) const;

  // The origin of the byte at `at`; kUserOrigin at the end of the text.
  int32_t origin_at(size_t at) const;
  // The end of the run that holds the byte at `at`, which is below size().
  size_t run_end(size_t at) const { return runs_[run_at(at)].end; }
  // The one origin of [begin, end), or kUserOrigin when it mixes several.
  int32_t origin_of(size_t begin, size_t end) const;

 private:
  size_t run_at(size_t at) const;  // index of the run that holds byte `at`

  std::string text_;
  std::vector<Run> runs_;
};

// Calls change(out, begin, end, c) for every character `c`, whose bytes are [begin, end); what it
// appends to `out` has that character's origin. The text is valid UTF-8.
template <typename Change>
MarkedText map_characters(const MarkedText& marked, Change change) {
  const std::string_view text(marked.text());
  MarkedText result;
  size_t at = 0;
  for (const MarkedText::Run& run : marked.runs()) {
    std::string changed;
    while (at < run.end) {
      const size_t begin = at;
      const char32_t c = next_code_point(text, at);
      change(changed, begin, at, c);
    }
    result.append(changed, run.origin);
  }
  return result;
}

}  // namespace airllm::text

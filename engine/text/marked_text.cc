#include "engine/text/marked_text.h"

#include <algorithm>

namespace airllm::text {

void MarkedText::append(std::string_view text, int32_t origin) {
  if (text.empty()) return;
  text_.append(text);
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = text_.size();
  } else {
    runs_.push_back({text_.size(), origin});
  }
}

void MarkedText::append_range(const MarkedText& other, size_t begin, size_t end) {
  const std::string_view text(other.text_);
  size_t run = other.run_at(begin);
  while (begin < end) {
    const size_t stop = std::min(end, other.runs_[run].end);
    append(text.substr(begin, stop - begin), other.runs_[run].origin);
    begin = stop;
    ++run;
  }
}

MarkedText MarkedText::substr(size_t begin, size_t end) const {
  MarkedText result;
  result.append_range(*this, begin, end);
  return result;
}

size_t MarkedText::run_at(size_t at) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), at,
                                    [](size_t byte, const Run& r) { return byte < r.end; });
  return static_cast<size_t>(run - runs_.begin());
}

int32_t MarkedText::origin_at(size_t at) const {
  const size_t run = run_at(at);
  return run < runs_.size() ? runs_[run].origin : kUserOrigin;
}

int32_t MarkedText::origin_of(size_t begin, size_t end) const {
  const size_t run = run_at(begin);
  if (run >= runs_.size() || end > runs_[run].end) return kUserOrigin;
  return runs_[run].origin;
}

}  // namespace airllm::text

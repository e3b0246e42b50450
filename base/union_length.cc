#include "base/union_length.h"

#include <algorithm>

namespace airllm {
namespace {

// Intervals that may still grow: one for each reader would do.
constexpr size_t kMostIntervals = 64;

}  // namespace

void UnionLength::add(int64_t begin, int64_t end) {
  while (!last_.empty() && last_.back().end >= begin) {
    begin = std::min(begin, last_.back().begin);
    end = std::max(end, last_.back().end);
    last_.pop_back();
  }
  last_.push_back({begin, end});
  if (last_.size() <= kMostIntervals) return;
  before_ += last_.front().end - last_.front().begin;
  last_.erase(last_.begin());
}

int64_t UnionLength::length() const {
  int64_t sum = before_;
  for (const Interval& interval : last_) sum += interval.end - interval.begin;
  return sum;
}

}  // namespace airllm

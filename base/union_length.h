// How much time is covered by intervals that overlap.
#pragma once

#include <cstdint>
#include <vector>

namespace airllm {

// The length of the union of intervals that come about in the order of their ends, as the reads of
// several readers do. Holds a few intervals only.
class UnionLength {
 public:
  void add(int64_t begin, int64_t end);
  int64_t length() const;

 private:
  struct Interval {
    int64_t begin, end;
  };
  std::vector<Interval> last_;  // disjoint, ascending
  int64_t before_ = 0;          // the length of those that are held no longer
};

}  // namespace airllm

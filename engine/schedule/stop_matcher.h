// Stop strings in streamed text: an answer ends before the first of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace airllm::schedule {

// Not thread-safe.
class StopMatcher {
 public:
  // Empty strings are left out.
  explicit StopMatcher(std::vector<std::string> stops);

  // Takes more text; returns what may be shown. Text that could be the beginning of a stop string
  // is held back. After `matched()` everything further is swallowed.
  std::string push(std::string_view text);
  // What is still held back, at the end of an answer that did not match.
  std::string finish();
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace airllm::schedule

// The progress line on stderr: stage, how far, rate and time left. Only on a terminal; otherwise
// nothing is ever printed. Not thread-safe.
#pragma once

#include <chrono>
#include <string>

#include "protocol/messages.h"

namespace airllm::client {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void update(const protocol::Progress& progress);
  // Removes the line, so that other output can follow.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  bool enabled_;
  bool visible_ = false;
  std::string stage_;  // the rate counts from where this stage began
  uint64_t first_done_ = 0;
  Clock::time_point started_;
  Clock::time_point drawn_;
};

// "split 1.5 GiB of 3 GiB, 0.82 GB/s, 2 s left". `rate` is in units per second, 0 when unknown.
// Made of printable characters only, at most `columns` bytes.
std::string progress_text(const protocol::Progress& progress, double rate, size_t columns);

}  // namespace airllm::client

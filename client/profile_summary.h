// The one screen that `airllm ask --profile` prints: where the time of a job went.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "protocol/messages.h"

namespace airllm::client {

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

class ProfileSummary {
 public:
  void add(const protocol::Profile& profile);
  // Several lines. `generated` is what the daemon says of the whole job.
  std::string text(const protocol::Generated& generated) const;

 private:
  void add(const protocol::ProfileEvent& event);
  std::string slowest_stages() const;

  struct Stage {
    uint64_t times = 0;
    uint64_t duration_ns = 0;
    uint64_t read_bytes = 0;
  };
  uint64_t sweeps_ = 0, sweeps_ns_ = 0;
  uint64_t rows_ = 0, other_rows_ = 0;
  uint64_t waits_ns_ = 0, samples_ns_ = 0;
  // Of the readers, or of the device's copy stream.
  struct Transfers {
    uint64_t count = 0, bytes = 0;
    UnionLength time;

    void add(const protocol::ProfileEvent& event);
    double total_seconds() const;
    std::string rate() const;  // "3.9 GiB at 1.20 GB/s in 1000"
  };
  Transfers reads_, copies_;
  std::map<std::string, Stage> stages_;
  uint64_t lost_ = 0;
};

}  // namespace airllm::client

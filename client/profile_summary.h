// The one screen that `airllm ask --profile` prints: where the time of a job went.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/union_length.h"
#include "protocol/messages.h"

namespace airllm::client {

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

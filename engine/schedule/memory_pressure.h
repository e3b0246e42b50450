// Memory pressure: what the kernel says of it (PSI), and what that makes of the RAM budget.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/schedule/budget.h"
#include "engine/schedule/job.h"

namespace airllm::schedule {

// The share of the last ten seconds, in percent, in which tasks waited for memory.
struct Pressure {
  double some_avg10 = 0;  // at least one
  double full_avg10 = 0;  // all of them at once
};

// The text of /proc/pressure/memory or of a cgroup's memory.pressure; nothing for what is none.
std::optional<Pressure> parse_pressure(std::string_view text);

// Whether memory given back would help tasks that wait for it anywhere on the machine: less than a
// quarter of it is available, or this process is near its cgroup's limit. Where it is not, they
// wait at limits of their own.
bool is_short(const FreeMemory& memory, uint64_t full_bytes);

// The RAM budget under pressure. A pure function of what take() was told: it reads no clock and no
// file.
class BudgetPolicy {
 public:
  explicit BudgetPolicy(uint64_t full_bytes);

  // The budget from now on. Under pressure a quarter less, once in ten seconds, down to an eighth
  // of the full one; after a minute without any, a sixteenth of the full one more, every half
  // minute, while so much and as much again is free.
  uint64_t take(const Pressure& pressure, uint64_t available_bytes, Clock::time_point now);

  uint64_t budget_bytes() const { return budget_bytes_; }
  uint64_t full_bytes() const { return full_bytes_; }

 private:
  uint64_t full_bytes_;
  uint64_t budget_bytes_;
  std::optional<Clock::time_point> last_change_;
  std::optional<Clock::time_point> last_pressure_;
};

// Where pressure is told.
struct PressureFile {
  std::string path;
  bool is_of_machine = false;  // of all its tasks, not of this process's cgroup
};

// Looks at the machine's pressure, while it is_short(), and at that of this process's cgroup every
// two seconds, on a thread of its own. Where there are no such files, or they are hidden
// (ProcSubset=pid), nothing happens.
class PressureWatch {
 public:
  // `on_budget` is called from that thread with each new budget and why, for a log.
  using OnBudget = std::function<void(uint64_t bytes, const std::string& reason)>;
  PressureWatch(uint64_t full_bytes, OnBudget on_budget);
  ~PressureWatch();
  PressureWatch(const PressureWatch&) = delete;
  PressureWatch& operator=(const PressureWatch&) = delete;

 private:
  void loop(const std::stop_token& stop);
  void look();
  // The most of all files that count; nothing when none can be read.
  std::optional<Pressure> read(bool is_machine_short) const;

  const std::chrono::milliseconds interval_;
  const std::vector<PressureFile> files_;
  BudgetPolicy policy_;
  const OnBudget on_budget_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::jthread thread_;
};

}  // namespace airllm::schedule

// When to try again, and when to give up.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <random>

namespace airllm::fetch {

using Clock = std::chrono::steady_clock;

struct RetryRules {
  // So many tries in a row that brought nothing are the last.
  int max_tries = 8;
  // The wait doubles from the first to the longest; a random part of it is waited (full jitter), so
  // that those who failed together do not come back together.
  std::chrono::milliseconds first_wait{1000};
  std::chrono::milliseconds longest_wait{60000};
  // A server that asks for a longer wait is asked again after this one.
  std::chrono::seconds longest_asked{300};
};

// Of one request of the daemon's; its transfers share it. Not thread-safe.
class Patience {
 public:
  explicit Patience(const RetryRules& rules, uint64_t seed = std::random_device{}())
      : rules_(rules), random_(seed) {}

  // A transfer that began at `began` failed; `asked` is how long the server wants to be left alone.
  // False when it was the last try. Those that were under way when one before failed count as one.
  bool failed(Clock::time_point began, Clock::time_point now,
              std::optional<std::chrono::seconds> asked = {});
  // It has brought something new.
  void progressed() { tries_ = 0; }

  // Nothing is to be begun before.
  Clock::time_point not_before() const { return not_before_; }
  int tries() const { return tries_; }

 private:
  RetryRules rules_;
  std::mt19937_64 random_;
  int tries_ = 0;
  Clock::time_point last_failure_{};
  Clock::time_point not_before_{};
};

}  // namespace airllm::fetch

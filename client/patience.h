// How long a command waits for a daemon that does not answer just now, and how it says so.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/result.h"

namespace airllm::client {

// What the absence of an answer lets one expect.
enum class Outlook {
  kNobodyExpected,  // no sign of a daemon: waits only if the user asked for it
  kRestarting,      // a daemon was there a moment ago, or says that it is stopping
};

// One allowance for a whole command: the clock runs from the first wait on, so that a daemon that
// always comes back only to go away again is not waited for without end. Not thread-safe.
class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  // How long a daemon that restarts is waited for when the user says nothing.
  static constexpr std::chrono::seconds kDefault{10};

  // `asked`: what --connect-timeout says; 0 never waits.
  explicit Patience(std::optional<Clock::duration> asked) : asked_(asked) {}

  // Sleeps a little before the next try, longer each time. False when the time is over: the try
  // before was the last. kCancelled after a signal. The first wait tells a terminal that `reason`.
  Result<bool> wait(Outlook outlook, const std::string& reason);

  // Until when a daemon that holds our connection may take to greet; nothing: as long as it likes.
  // That is only bounded when the user asked, since the service manager holds connections for a
  // daemon that it starts.
  std::optional<Clock::time_point> greeting_deadline();
  // It greeted. Unless the wait had begun before, the whole allowance is there again.
  void greeted();
  // Tells a terminal, once, that `reason` makes us wait.
  void notify(const std::string& reason);

 private:
  // Starts the clock if it does not run yet.
  Clock::time_point deadline(Clock::duration allowance);

  std::optional<Clock::duration> asked_;
  std::optional<Clock::time_point> deadline_;
  Clock::duration pause_ = std::chrono::milliseconds(20);
  bool has_waited_ = false;
  bool notified_ = false;
};

}  // namespace airllm::client

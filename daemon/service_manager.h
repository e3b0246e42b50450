// What the service manager is told (sd_notify(3)): that the daemon lives, what it does now, that it
// needs time. Without NOTIFY_SOCKET all of it does nothing.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace airllm::daemon {

// Whether a service manager listens.
bool has_service_manager();

// Keeps a watchdog (WatchdogSec=) quiet while the engine thread goes on.
class Watchdog {
 public:
  // The watchdog that this process is to pet (sd_watchdog_enabled(3)); nothing without one.
  static std::optional<Watchdog> from_environment();
  explicit Watchdog(std::chrono::microseconds timeout) : interval_(timeout / 4) {}

  // How often to call pet() at least.
  std::chrono::microseconds interval() const { return interval_; }
  // Says so to the manager, at most once in an interval. Call from one thread, the engine's.
  void pet();

 private:
  std::chrono::microseconds interval_;
  std::chrono::steady_clock::time_point last_{};
};

// Asks for more time to start, once a second at most; call as the start goes on.
class StartProgress {
 public:
  void advance();

 private:
  std::chrono::steady_clock::time_point last_{};
};

void tell_ready();
void tell_reloading();
// The daemon stops; it will take `time` at most, and says why in `status`.
void tell_stopping(const std::string& status, std::chrono::seconds time);

// Keeps STATUS= true. Belongs to the thread that runs `io`.
class StatusLine {
 public:
  // What the daemon does now, and whether that may change without a call of changed().
  struct Now {
    std::string text;
    bool may_change = false;
  };
  StatusLine(asio::io_context& io, std::function<Now()> describe)
      : describe_(std::move(describe)), timer_(io) {}

  // Something may have changed: it is told at once, but for the second after the last time.
  void changed();
  // Nothing more is told.
  void close();

 private:
  void tell();

  std::function<Now()> describe_;
  asio::steady_timer timer_;
  bool is_due_ = false;
  bool closed_ = false;
  std::string told_;
};

// "Idle: 3 models, no jobs", "Running 2 jobs of 1 model, 1 waits". Counts, no names: everyone on
// the machine can read it.
std::string describe_jobs(const std::vector<engine::JobInfo>& jobs, size_t models);

}  // namespace airllm::daemon

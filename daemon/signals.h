// The signals that stop the daemon, and the one that makes it read its settings again.
#pragma once

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <functional>

namespace airllm::daemon {

// What a terminal's hangup means, decided once at start: under a service manager, and without a
// controlling terminal, SIGHUP reads the settings again; with one it stops, as the terminal goes.
// nohup(1) ignores it, and means it.
enum class Hangup { kReloads, kStops, kIgnored };
Hangup hangup_at_start();

// Belongs to the thread that runs `io`.
class Signals {
 public:
  // `stop` is called with the number of the signal; at the first time in order, at the second, with
  // `at_once`, no job is waited for. From then on a signal ends the process, whatever goes on.
  struct Handlers {
    std::function<void(int signal, bool at_once)> stop;
    std::function<void()> reload;
  };
  Signals(asio::io_context& io, Hangup hangup, Handlers handlers);

 private:
  void wait();
  void caught(int signal);

  asio::signal_set signals_;
  const Hangup hangup_;
  const Handlers handlers_;
  bool stopping_ = false;
};

}  // namespace airllm::daemon

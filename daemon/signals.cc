#include "daemon/signals.h"

#include <fcntl.h>

#include <csignal>
#include <utility>

#include "base/sanitizer.h"
#include "base/unique_fd.h"
#include "daemon/service_manager.h"

namespace airllm::daemon {

Hangup hangup_at_start() {
  struct sigaction now {};
  if (::sigaction(SIGHUP, nullptr, &now) == 0 && now.sa_handler == SIG_IGN) {
    return Hangup::kIgnored;
  }
  if (has_service_manager()) return Hangup::kReloads;
  const UniqueFd terminal(::open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  return terminal.valid() ? Hangup::kStops : Hangup::kReloads;
}

Signals::Signals(asio::io_context& io, Hangup hangup, Handlers handlers)
    : signals_(io, SIGTERM, SIGINT), hangup_(hangup), handlers_(std::move(handlers)) {
  make_record_of_signals();
  if (hangup_ != Hangup::kIgnored) signals_.add(SIGHUP);
  wait();
}

void Signals::wait() {
  signals_.async_wait([this](const std::error_code& error, int signal) {
    if (!error) caught(signal);
  });
}

void Signals::caught(int signal) {
  if (signal == SIGHUP && hangup_ == Hangup::kReloads) {
    if (!stopping_) handlers_.reload();
  } else {
    const bool at_once = std::exchange(stopping_, true);
    if (at_once) std::signal(signal, SIG_DFL);  // NOLINT(bugprone-signal-handler)
    handlers_.stop(signal, at_once);
  }
  wait();
}

}  // namespace airllm::daemon

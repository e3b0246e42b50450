#include "client/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "base/sanitizer.h"

namespace airllm::client {
namespace {

std::atomic<int> caught{0};
std::array<int, 2> wake_pipe{-1, -1};

extern "C" void handle_signal(int number) {
  int none = 0;
  if (!caught.compare_exchange_strong(none, number)) _exit(128 + number);
  const int saved_errno = errno;
  const char byte = 0;
  // A full pipe is as readable as one byte.
  [[maybe_unused]] const ssize_t written = write(wake_pipe[1], &byte, 1);
  errno = saved_errno;
}

void handle(int number) {
  struct sigaction action {};
  action.sa_handler = handle_signal;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a blocked write to a slow pipe has to notice the signal.
  sigaction(number, &action, nullptr);
}

bool is_ignored(int number) {
  struct sigaction current {};
  return sigaction(number, nullptr, &current) == 0 && current.sa_handler == SIG_IGN;
}

}  // namespace

void install_signal_handlers() {
  if (wake_pipe[0] < 0 && pipe2(wake_pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) return;
  make_record_of_signals();
  signal(SIGPIPE, SIG_DFL);
  handle(SIGINT);
  handle(SIGTERM);
  if (!is_ignored(SIGHUP)) handle(SIGHUP);
}

int signal_wake_fd() { return wake_pipe[0]; }
int caught_signal() { return caught.load(); }

int cancelled_exit_status() {
  const int number = caught_signal();
  return number == 0 ? 130 : 128 + number;
}

}  // namespace airllm::client

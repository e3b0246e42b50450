#include "client/confirm.h"

#include <poll.h>
#include <unistd.h>

#include <array>

#include "client/output.h"
#include "client/prompt.h"
#include "client/signals.h"

namespace airllm::client {

bool can_ask() { return stdin_is_terminal() && stderr_is_terminal(); }

bool confirm(const std::string& question) {
  print_err(question + " [y/N] ");
  std::array<pollfd, 2> waits{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{signal_wake_fd(), POLLIN, 0}};
  while (poll(waits.data(), waits.size(), -1) < 0 && caught_signal() == 0) {
  }
  if (caught_signal() != 0) return false;
  std::array<char, 256> answer{};
  const ssize_t got = read(STDIN_FILENO, answer.data(), answer.size());
  return got > 0 && (answer[0] == 'y' || answer[0] == 'Y');
}

}  // namespace airllm::client

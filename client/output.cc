#include "client/output.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "base/json.h"
#include "base/utf8.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

// What a pipe takes without blocking once poll() says that it is writable.
constexpr size_t kPieceBytes = PIPE_BUF;

bool may_block(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 && !S_ISREG(status.st_mode);
}

// Waits until stdout takes bytes. False when a signal came first.
bool wait_writable(bool ignore_signals) {
  std::array<pollfd, 2> waits{pollfd{STDOUT_FILENO, POLLOUT, 0},
                              pollfd{ignore_signals ? -1 : signal_wake_fd(), POLLIN, 0}};
  for (;;) {
    if (poll(waits.data(), waits.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return true;  // write() says what is wrong
    }
    if (waits[0].revents != 0) return true;
    if (waits[1].revents != 0) return false;
  }
}

Unexpected stdout_error(int error) {
  return Unexpected(errno_error(
      "cannot write to standard output", error,
      error == ENOSPC ? "make room where the output goes to" : "see where the output goes to"));
}

}  // namespace

bool stdout_is_terminal() {
  static const bool is_terminal = isatty(STDOUT_FILENO) == 1;
  return is_terminal;
}

bool stderr_is_terminal() {
  static const bool is_terminal = isatty(STDERR_FILENO) == 1;
  return is_terminal;
}

bool stderr_shows_stdout() {
  struct stat out {};
  struct stat err {};
  if (stderr_is_terminal()) return true;
  return fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &err) == 0 &&
         out.st_dev == err.st_dev && out.st_ino == err.st_ino;
}

void open_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      // The lowest free number is `fd`. Reading stdin finds its end; writing fails.
      [[maybe_unused]] const int opened = open("/dev/null", O_RDONLY);
    }
  }
}

Status print_out(std::string_view bytes, bool ignore_signals) {
  static const bool blocks = may_block(STDOUT_FILENO);
  while (!bytes.empty()) {
    if (blocks && !wait_writable(ignore_signals)) {
      return Unexpected(ErrorCode::kCancelled, "cancelled");
    }
    const size_t piece = blocks ? std::min(bytes.size(), kPieceBytes) : bytes.size();
    const ssize_t written = write(STDOUT_FILENO, bytes.data(), piece);
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR && errno != EAGAIN) {
      return stdout_error(errno);
    }
  }
  return {};
}

void print_err(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(STDERR_FILENO, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

std::string shown_on_stdout(std::string_view text) {
  return stdout_is_terminal() ? escape_for_display(text) : std::string(text);
}

std::string name_on_stdout(std::string_view name) {
  return stdout_is_terminal() ? escape_for_display(name, true) : std::string(name);
}

std::string shown_on_stderr(std::string_view text) {
  return stderr_is_terminal() ? escape_for_display(text) : std::string(text);
}

void print_error(const Error& error) {
  std::string text = "airllm: " + shown_on_stderr(error.message) + "\n";
  if (!error.remedy.empty()) text += "  " + shown_on_stderr(error.remedy) + "\n";
  print_err(text);
}

std::string json_for_stdout(const Json& value) {
  return value.dump(-1, ' ', stdout_is_terminal(), Json::error_handler_t::replace);
}

Json error_json(const Error& error) {
  return Json{
      {"code", error_name(error.code)}, {"message", error.message}, {"remedy", error.remedy}};
}

void end_if_stdout_closed(short revents) {
  if ((revents & POLLERR) == 0) return;
  raise(SIGPIPE);
}

}  // namespace airllm::client

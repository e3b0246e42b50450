#include "fetch/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>

namespace airllm::fetch {
namespace {

// Where tokens are, and where they are told to be.
constexpr auto kTokenVariables =
    std::to_array({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "CREDENTIALS_DIRECTORY"});

Result<UniqueFd> checked_connection(UniqueFd fd) {
  if (::sd_is_socket_unix(fd.get(), SOCK_STREAM, 0, nullptr, 0) > 0) return fd;
  return Unexpected(ErrorCode::kUsage, "descriptor " + std::to_string(fd.get()) +
                                           " is no connection of a Unix stream socket");
}

}  // namespace

Result<UniqueFd> take_connection(std::optional<int> socket_fd) {
  if (socket_fd) return checked_connection(UniqueFd(*socket_fd));
  const int count = ::sd_listen_fds(1);
  if (count != 1) {
    return Unexpected(ErrorCode::kUsage, "there is no connection to serve",
                      "airllmd starts this program; by hand: --socket-fd N (airllm-fetch(8))");
  }
  UniqueFd fd(SD_LISTEN_FDS_START);
  if (::sd_is_socket_unix(fd.get(), SOCK_STREAM, 1, nullptr, 0) <= 0) {
    return checked_connection(std::move(fd));
  }
  for (;;) {
    UniqueFd connection(::accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (connection.valid()) return connection;
    if (errno != EINTR && errno != ECONNABORTED) {
      return Unexpected(errno_error("cannot accept a connection", errno));
    }
  }
}

Result<Secret> take_own_token() {
  const char* const folder = std::getenv("CREDENTIALS_DIRECTORY");  // NOLINT(concurrency-mt-unsafe)
  if (folder == nullptr) return Secret();
  const std::string path = std::string(folder) + "/hf-token";
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid() && errno == ENOENT) return Secret();
  std::array<char, 8192> buffer{};
  const ssize_t size = file.valid() ? ::read(file.get(), buffer.data(), buffer.size()) : -1;
  if (size < 0) return Unexpected(errno_error("the credential " + path, errno));
  std::string_view text(buffer.data(), static_cast<size_t>(size));
  constexpr std::string_view kBlank = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
  text = text.substr(0, text.find_last_not_of(kBlank) + 1);
  Secret token{std::string(text)};
  ::explicit_bzero(buffer.data(), buffer.size());
  AIRLLM_TRY_VOID(with_remedy(check_token(token.reveal()), "look at the credential " + path));
  return token;
}

Status close_off(int keep) {
  std::signal(SIGPIPE, SIG_IGN);  // NOLINT(bugprone-signal-handler)
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return Unexpected(errno_error("cannot give up privileges", errno));
  }
  for (const char* name : kTokenVariables) ::unsetenv(name);  // NOLINT(concurrency-mt-unsafe)
  if (::chdir("/") != 0) return Unexpected(errno_error("cannot stand in /", errno));
  const auto descriptor = static_cast<unsigned>(keep);
  constexpr unsigned kFirst = STDERR_FILENO + 1;
  if (descriptor > kFirst) ::close_range(kFirst, descriptor - 1, 0);
  if (::close_range(std::max(descriptor + 1, kFirst), ~0U, 0) != 0) {
    return Unexpected(errno_error("cannot close what was left open", errno));
  }
  return {};
}

}  // namespace airllm::fetch

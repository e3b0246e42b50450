#include "client/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/utf8.h"
#include "client/connection.h"
#include "client/signals.h"
#include "client/socket_path.h"

namespace airllm::client {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);
constexpr auto kRetryInterval = std::chrono::milliseconds(10);
// Another daemon holds the lock; it may be about to answer.
constexpr int kExitTemporary = 75;
constexpr auto kPatienceWithOther = std::chrono::seconds(5);
constexpr off_t kLogTailBytes = 2000;

// The daemon beside this program, else the bare name for a search on PATH.
std::string find_daemon() {
  std::array<char, PATH_MAX> self{};
  const ssize_t length = readlink("/proc/self/exe", self.data(), self.size() - 1);
  if (length > 0) {
    const std::string beside =
        (fs::path(std::string_view(self.data(), static_cast<size_t>(length))).parent_path() /
         "airllmd")
            .string();
    if (access(beside.c_str(), X_OK) == 0) return beside;
  }
  return "airllmd";
}

std::string absolute(const std::string& path) {
  std::error_code ignored;
  const fs::path full = fs::absolute(path, ignored);
  return ignored ? path : full.string();
}

// The folders of the default paths are made; one that a person named must be there.
Status make_socket_folder(const std::string& socket_path) {
  const bool is_users = user_socket_path() == socket_path;
  if (!is_users && socket_path != kSystemSocket) return {};
  const std::string folder = fs::path(socket_path).parent_path().string();
  if (mkdir(folder.c_str(), is_users ? 0700 : 0755) == 0 || errno == EEXIST) return {};
  return Unexpected(errno_error("cannot make " + folder, errno));
}

// The end of the log from byte `from` on, made fit for a message.
std::string log_tail(const std::string& path, off_t from) {
  const UniqueFd log(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat status {};
  if (!log.valid() || fstat(log.get(), &status) != 0) return {};
  from = std::max(from, status.st_size - kLogTailBytes);
  std::string text(static_cast<size_t>(std::max<off_t>(status.st_size - from, 0)), '\0');
  const ssize_t got = pread(log.get(), text.data(), text.size(), from);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return escape_for_display(text);
}

// posix_spawn's settings: a session of its own, our stdin and outputs replaced, signals as new.
class SpawnSettings {
 public:
  explicit SpawnSettings(int log_fd) {
    posix_spawnattr_init(&attributes_);
    posix_spawn_file_actions_init(&actions_);
    sigset_t all;
    sigset_t none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(&attributes_,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, log_fd, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, log_fd, STDERR_FILENO);
    posix_spawn_file_actions_addchdir_np(&actions_, "/");
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  posix_spawnattr_t* attributes() { return &attributes_; }
  posix_spawn_file_actions_t* actions() { return &actions_; }

 private:
  posix_spawnattr_t attributes_{};
  posix_spawn_file_actions_t actions_{};
};

Result<pid_t> start(std::vector<std::string> command, int log_fd) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  SpawnSettings settings(log_fd);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], settings.actions(), settings.attributes(),
                                 argv.data(), environ);
  if (error == 0) return child;
  Error failure = errno_error("cannot start " + command[0], error,
                              "install airllmd beside airllm, or put its folder on PATH");
  failure.code = ErrorCode::kUnavailable;
  return Unexpected(std::move(failure));
}

Unexpected failed(const std::string& what, const std::string& log_path, off_t log_start) {
  std::string message = what;
  const std::string tail = log_tail(log_path, log_start);
  if (!tail.empty()) message += "; its last words:\n" + tail;
  return Unexpected(ErrorCode::kUnavailable, message, "its log is " + log_path);
}

// Connects as soon as the daemon answers.
Result<UniqueFd> wait_for_answer(pid_t child, const std::string& socket_path,
                                 const std::string& log_path, off_t log_start) {
  Clock::time_point deadline = Clock::now() + kPatience;
  int exit_code = -1;
  for (;;) {
    Result<UniqueFd> socket = connect_socket(socket_path);
    if (socket || socket.error().code != ErrorCode::kUnavailable) return socket;
    if (caught_signal() != 0) return Unexpected(ErrorCode::kCancelled, "cancelled");
    int status = 0;
    if (exit_code < 0 && waitpid(child, &status, WNOHANG) == child) {
      exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      deadline = std::min(deadline, Clock::now() + kPatienceWithOther);
    }
    if (exit_code >= 0 && (exit_code != kExitTemporary || Clock::now() > deadline)) {
      return failed("the daemon ended with status " + std::to_string(exit_code), log_path,
                    log_start);
    }
    if (Clock::now() > deadline) {
      return failed("the daemon (pid " + std::to_string(child) + ") does not answer", log_path,
                    log_start);
    }
    std::this_thread::sleep_for(kRetryInterval);
  }
}

}  // namespace

Result<UniqueFd> spawn_daemon(const std::string& socket_path,
                              const std::optional<std::string>& store) {
  const std::string socket = absolute(socket_path);
  AIRLLM_TRY_VOID(make_socket_folder(socket));
  const std::string log_path = socket + ".log";
  const UniqueFd log(
      open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!log.valid()) return Unexpected(errno_error("cannot write " + log_path, errno));
  struct stat status {};
  const off_t log_start = fstat(log.get(), &status) == 0 ? status.st_size : 0;
  std::vector<std::string> command{find_daemon(), "--foreground", "--socket", socket};
  if (store) command.insert(command.end(), {"--store", absolute(*store)});
  AIRLLM_TRY(const pid_t child, start(std::move(command), log.get()));
  return wait_for_answer(child, socket_path, log_path, log_start);
}

}  // namespace airllm::client

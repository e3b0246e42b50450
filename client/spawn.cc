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
#include <filesystem>
#include <sstream>
#include <thread>
#include <vector>

#include "base/utf8.h"
#include "client/connector.h"
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

std::string absolute(const std::string& path) {
  std::error_code ignored;
  const fs::path full = fs::absolute(path, ignored);
  return ignored ? path : full.string();
}

// The folders of the default paths are made; one that a person named must be there.
Status make_socket_folder(const std::string& socket_path) {
  constexpr const char* kRemedy = "make it first, or name another place with --socket PATH";
  const bool is_users = user_socket_path() == socket_path;
  const std::string folder = fs::path(socket_path).parent_path().string();
  if (!is_users && socket_path != kSystemSocket) {
    std::error_code ignored;
    if (fs::is_directory(folder, ignored)) return {};
    return Unexpected(ErrorCode::kNoInput, "the socket's folder " + folder + " is not there",
                      kRemedy);
  }
  if (mkdir(folder.c_str(), is_users ? 0700 : 0755) != 0 && errno != EEXIST) {
    return Unexpected(errno_error("cannot make the socket's folder " + folder, errno, kRemedy));
  }
  if (!is_users || is_private_place(socket_path)) return {};
  return Unexpected(ErrorCode::kNoPermission,
                    "the folder " + folder + " belongs to another user, or others may write to it",
                    "name another place with --socket PATH");
}

// The daemon's log, from the byte on at which this daemon's part begins.
struct Log {
  std::string path;
  off_t start = 0;
};

off_t size_of(const std::string& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0 ? status.st_size : 0;
}

// The end of the log, made fit for a message.
std::string log_tail(const Log& log) {
  const UniqueFd file(open(log.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) return {};
  const off_t size = size_of(log.path);
  const off_t from = std::max(log.start, size - kLogTailBytes);
  std::string text(static_cast<size_t>(std::max<off_t>(size - from, 0)), '\0');
  const ssize_t got = pread(file.get(), text.data(), text.size(), from);
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

// The daemon ended: what it wrote, and its log away if that is all there is in it.
Unexpected ended(int exit_code, const Log& log) {
  std::string message = "the daemon ended with status " + std::to_string(exit_code);
  const std::string tail = log_tail(log);
  if (!tail.empty()) message += "; its last words:\n" + tail;
  std::string remedy = "its log is " + log.path;
  // With the status of a lock that is held, another daemon may be writing it.
  const bool is_ours = log.start == 0 && exit_code != kExitTemporary;
  if (is_ours && size_of(log.path) <= kLogTailBytes) {
    unlink(log.path.c_str());
    remedy = "mend that, and give the command again";
  }
  const ErrorCode code = error_code_from_exit_status(exit_code).value_or(ErrorCode::kUnavailable);
  return Unexpected(code, message, remedy);
}

// Connects as soon as the daemon answers.
Result<UniqueFd> wait_for_answer(pid_t child, const std::string& socket_path, const Log& log) {
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
      return ended(exit_code, log);
    }
    if (Clock::now() > deadline) {
      return Unexpected(ErrorCode::kUnavailable,
                        "the daemon (pid " + std::to_string(child) + ") does not answer",
                        "its log is " + log.path);
    }
    std::this_thread::sleep_for(kRetryInterval);
  }
}

}  // namespace

std::string find_daemon() {
  std::error_code ignored;
  const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
  std::string folders = self.parent_path().string();
  if (const auto path = environment("PATH")) folders += ":" + *path;
  std::istringstream list(folders);
  for (std::string folder; std::getline(list, folder, ':');) {
    const std::string program = folder + "/airllmd";
    if (!folder.empty() && access(program.c_str(), X_OK) == 0) return program;
  }
  return "";
}

Result<UniqueFd> spawn_daemon(const std::string& socket_path,
                              const std::optional<std::string>& store) {
  const std::string socket = absolute(socket_path);
  AIRLLM_TRY_VOID(make_socket_folder(socket));
  Log log{socket + ".log"};
  const UniqueFd file(
      open(log.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return Unexpected(errno_error("cannot write the daemon's log " + log.path, errno,
                                  "name another place with --socket PATH"));
  }
  log.start = size_of(log.path);
  const std::string program = find_daemon();
  std::vector<std::string> command{program.empty() ? "airllmd" : program, "--exit-when-idle",
                                   "--foreground", "--socket", socket};
  if (store) command.insert(command.end(), {"--store", absolute(*store)});
  AIRLLM_TRY(const pid_t child, start(std::move(command), file.get()));
  return wait_for_answer(child, socket_path, log);
}

}  // namespace airllm::client

#include "tests/client/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/check.h"

namespace airllm::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kMaxRun = std::chrono::seconds(30);

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

struct Pipe {
  UniqueFd read_end, write_end;
  Pipe() {
    std::array<int, 2> ends{};
    AIRLLM_CHECK(pipe2(ends.data(), O_CLOEXEC) == 0);
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
  }
};

pid_t spawn(const std::vector<std::string>& args, const RunOptions& options,
            posix_spawn_file_actions_t* actions, bool new_session) {
  std::vector<std::string> words{options.program.empty() ? AIRLLM_PROGRAM : options.program};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<std::string> environment = options.environment;
  environment.push_back(std::string("PATH=") + std::getenv("PATH"));
  for (const char* name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name))
      environment.push_back(std::string(name) + "=" + value);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t all;
  sigset_t none;
  sigfillset(&all);
  sigemptyset(&none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes,
                           static_cast<short>(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                              (new_session ? POSIX_SPAWN_SETSID : 0)));
  pid_t pid = -1;
  const int error = posix_spawn(&pid, words[0].c_str(), actions, &attributes,
                                pointers(words).data(), pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  AIRLLM_CHECK(error == 0);
  return pid;
}

}  // namespace

Running::Running(const std::vector<std::string>& args, const RunOptions& options)
    : input_(options.input) {
  signal(SIGPIPE, SIG_IGN);
  if (options.terminal) {
    start_with_terminal(args, options);
  } else {
    start_with_pipes(args, options);
  }
}

void Running::start_with_pipes(const std::vector<std::string>& args, const RunOptions& options) {
  Pipe in;
  Pipe out;
  Pipe err;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.read_end.get(), 0);
  if (options.stdout_is_full) {
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/full", O_WRONLY, 0);
  } else {
    posix_spawn_file_actions_adddup2(&actions, out.write_end.get(), 1);
  }
  posix_spawn_file_actions_adddup2(&actions, err.write_end.get(), 2);
  pid_ = spawn(args, options, &actions, false);
  posix_spawn_file_actions_destroy(&actions);
  in_ = std::move(in.write_end);
  out_ = std::move(out.read_end);
  err_ = std::move(err.read_end);
  fcntl(in_.get(), F_SETFL, O_NONBLOCK);
  if (input_.empty()) in_.reset();
}

void Running::start_with_terminal(const std::vector<std::string>& args, const RunOptions& options) {
  int controller = -1;
  int terminal = -1;
  std::array<char, 256> name{};
  AIRLLM_CHECK(openpty(&controller, &terminal, name.data(), nullptr, nullptr) == 0);
  out_.reset(controller);
  const UniqueFd child_side(terminal);
  fcntl(controller, F_SETFD, FD_CLOEXEC);
  fcntl(terminal, F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int fd = 0; fd < 3; ++fd) posix_spawn_file_actions_adddup2(&actions, terminal, fd);
  pid_ = spawn(args, options, &actions, true);
  posix_spawn_file_actions_destroy(&actions);
}

Running::~Running() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

void Running::send_signal(int number) const { kill(pid_, number); }

// Moves what can be moved. False when both outputs have ended or nothing happened in time.
bool Running::read_some(int timeout_ms) {
  std::array<pollfd, 3> waits{pollfd{in_.get(), POLLOUT, 0}, pollfd{out_.get(), POLLIN, 0},
                              pollfd{err_.get(), POLLIN, 0}};
  if (!out_.valid() && !err_.valid()) return false;
  if (poll(waits.data(), waits.size(), timeout_ms) <= 0) return false;
  if (waits[0].revents != 0) {
    const ssize_t written = write(in_.get(), input_.data(), input_.size());
    if (written > 0) input_.erase(0, static_cast<size_t>(written));
    if (input_.empty() || (written < 0 && errno != EAGAIN)) in_.reset();
  }
  const auto take = [](UniqueFd& fd, short revents, std::string& text) {
    if (revents == 0) return;
    std::array<char, 65536> buffer;
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got > 0) text.append(buffer.data(), static_cast<size_t>(got));
    if (got <= 0) fd.reset();
  };
  take(out_, waits[1].revents, finished_.out);
  take(err_, waits[2].revents, finished_.err);
  return true;
}

bool Running::wait_for_output(const std::string& text) {
  while (finished_.out.find(text) == std::string::npos) {
    if (!read_some(10000)) return false;
  }
  return true;
}

bool Running::ends_unread(int timeout_ms) const {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  do {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid_) {
      return true;
    }
    usleep(1000);
  } while (Clock::now() < deadline);
  return false;
}

Finished Running::finish() {
  const auto deadline = Clock::now() + kMaxRun;
  while ((out_.valid() || err_.valid()) && Clock::now() < deadline) read_some(100);
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (Clock::now() > deadline) kill(pid_, SIGKILL);
    usleep(1000);
  }
  pid_ = -1;
  finished_.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  finished_.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return finished_;
}

Finished run_airllm(const std::vector<std::string>& args, const RunOptions& options) {
  return Running(args, options).finish();
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "airllm-test.XXXXXX").string();
  AIRLLM_CHECK(mkdtemp(name.data()) != nullptr);
  path_ = std::filesystem::canonical(name).string();
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, const std::string& content) const {
  const std::filesystem::path path = std::filesystem::path(path_) / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path.string();
}

}  // namespace airllm::client

#include "client/service_state.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <sstream>
#include <vector>

#include "base/unique_fd.h"
#include "client/socket_path.h"

namespace airllm::client {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(2);
constexpr size_t kMostBytes = 4096;

// As sd_booted(3) does, and the same for a user's manager.
bool is_running(Manager manager) {
  if (manager == Manager::kSystem) return access("/run/systemd/system", F_OK) == 0;
  const auto folder = environment("XDG_RUNTIME_DIR");
  return folder && access((*folder + "/systemd").c_str(), F_OK) == 0;
}

// Starts `command` with its stdout in `out` and no other descriptor of ours; 0 when it cannot.
pid_t start(std::vector<std::string> command, int out) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? child : 0;
}

// All that comes until the other end closes; nothing when that takes too long.
std::optional<std::string> read_to_end(int fd) {
  const Clock::time_point deadline = Clock::now() + kPatience;
  std::string text;
  std::array<char, 512> buffer;
  while (text.size() < kMostBytes) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wait{fd, POLLIN, 0};
    if (left <= 0 || poll(&wait, 1, static_cast<int>(left)) <= 0) return std::nullopt;
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

std::optional<std::string> output_of(std::vector<std::string> command) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return std::nullopt;
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = start(std::move(command), writing.get());
  writing.reset();
  if (child == 0) return std::nullopt;
  std::optional<std::string> text = read_to_end(reading.get());
  if (!text) kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return text;
}

}  // namespace

std::optional<ServiceState> service_state(Manager manager) {
  if (!is_running(manager)) return std::nullopt;
  std::vector<std::string> command{"systemctl"};
  if (manager == Manager::kUser) command.emplace_back("--user");
  command.insert(command.end(), {"is-active", "airllmd.socket", "airllmd.service"});
  const std::optional<std::string> text = output_of(std::move(command));
  if (!text) return std::nullopt;
  ServiceState state;
  std::istringstream words(*text);
  if (!(words >> state.socket >> state.service)) return std::nullopt;
  return state;
}

}  // namespace airllm::client

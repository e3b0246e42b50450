#include "client/socket_path.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "client/connection.h"
#include "client/spawn.h"

namespace airllm::client {
namespace {

// The socket that the user named.
std::optional<std::string> named_socket(const Globals& globals) {
  return globals.socket ? globals.socket : environment("AIRLLM_SOCKET");
}

Unexpected no_daemon(const std::vector<std::string>& candidates, bool is_named) {
  std::string places;
  for (const std::string& path : candidates) {
    if (!places.empty()) places += " or ";
    places += path;
  }
  const std::string start =
      is_named ? "start one: 'airllmd --foreground --socket " + candidates.front() + " &'"
               : "start one: 'airllmd --foreground &', or 'systemctl --user start airllmd'";
  return Unexpected(ErrorCode::kUnavailable, "no daemon answers at " + places,
                    start + "; or let this command start a private one: 'airllm --spawn ask ...'");
}

// What to say when none of `candidates` could be used; `failures` are theirs, in order.
Unexpected nobody_answers(const std::vector<std::string>& candidates,
                          const std::vector<Error>& failures, bool is_named) {
  const auto telling = std::find_if(failures.begin(), failures.end(), [](const Error& error) {
    return error.code != ErrorCode::kUnavailable;
  });
  if (telling == failures.end()) return no_daemon(candidates, is_named);
  std::string message;
  for (const Error& error : failures) {
    if (!message.empty()) message += "; ";
    message += error.message;
  }
  return Unexpected(telling->code, message, telling->remedy);
}

std::string folder_below_tmp() { return "/tmp/airllm-" + std::to_string(getuid()); }

// The folder that an XDG variable names, else the one below the home folder.
std::optional<std::string> xdg_folder(const char* variable, const char* below_home) {
  const auto folder = environment(variable);
  if (folder && folder->front() == '/') return folder;
  if (const auto home = environment("HOME")) return *home + below_home;
  const passwd* const entry = getpwuid(getuid());  // NOLINT(concurrency-mt-unsafe): one thread
  if (entry == nullptr) return std::nullopt;
  return std::string(entry->pw_dir) + below_home;
}

// Where a private daemon keeps its models: not where the system's does, as root's or the system's
// settings would have it. Nothing when the user's own settings decide.
std::optional<std::string> private_store(const Globals& globals, const std::string& socket_path) {
  if (globals.store) return globals.store;
  if (const auto store = environment("AIRLLM_STORE")) return store;
  if (socket_path == kSystemSocket) return std::nullopt;
  const auto settings = xdg_folder("XDG_CONFIG_HOME", "/.config");
  const bool reads_them = geteuid() != 0 || environment("XDG_RUNTIME_DIR");
  if (reads_them && settings && access((*settings + "/airllm/airllmd.conf").c_str(), F_OK) == 0) {
    return std::nullopt;
  }
  const auto data = xdg_folder("XDG_DATA_HOME", "/.local/share");
  return data ? std::optional(*data + "/airllm") : std::nullopt;
}

}  // namespace

std::optional<std::string> environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::string user_socket_path() {
  std::string folder = environment("XDG_RUNTIME_DIR").value_or("");
  // A relative path there is to be ignored, says the XDG specification.
  if (folder.empty() || folder.front() != '/') {
    folder = "/run/user/" + std::to_string(getuid());
    struct stat status {};
    const bool is_ours = stat(folder.c_str(), &status) == 0 && status.st_uid == getuid();
    if (!is_ours) return folder_below_tmp() + "/airllm.sock";
  }
  return folder + "/airllm/airllm.sock";
}

bool is_private_place(const std::string& user_socket_path) {
  const std::string folder = folder_below_tmp();
  if (!user_socket_path.starts_with(folder + "/")) return true;
  struct stat status {};
  if (lstat(folder.c_str(), &status) != 0) return errno == ENOENT;
  return S_ISDIR(status.st_mode) && status.st_uid == getuid() &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

std::string log_of(const std::string& socket_path) {
  if (access((socket_path + ".log").c_str(), F_OK) == 0) return socket_path + ".log";
  if (socket_path == kSystemSocket) return "journalctl -u airllmd";
  if (socket_path == user_socket_path()) return "journalctl --user -u airllmd";
  return "what it wrote to standard error";
}

std::vector<std::string> socket_candidates(const Globals& globals) {
  if (const auto path = named_socket(globals)) return {*path};
  std::vector<std::string> paths;
  if (const std::string path = user_socket_path(); is_private_place(path)) paths.push_back(path);
  paths.emplace_back(kSystemSocket);
  return paths;
}

Result<Connection> Connection::open(const Globals& globals) {
  if (globals.store && !globals.spawn) {
    return Unexpected(ErrorCode::kUsage, "--store is for the daemon that --spawn starts",
                      "a daemon that runs has its own store; see 'airllm status'");
  }
  const std::optional<std::string> named = named_socket(globals);
  const std::vector<std::string> candidates = socket_candidates(globals);
  std::vector<Error> failures;
  for (const std::string& path : candidates) {
    Result<UniqueFd> socket = connect_socket(path);
    if (socket) return Connection(std::move(socket).value(), path);
    if (socket.error().code == ErrorCode::kCancelled) return Unexpected(socket.error());
    failures.push_back(std::move(socket).error());
  }
  // What cannot be used for another reason than that nobody answers, no new daemon can use either.
  const bool may_spawn = globals.spawn && failures.front().code == ErrorCode::kUnavailable;
  if (!may_spawn) return nobody_answers(candidates, failures, named.has_value());
  std::string path = named.value_or(user_socket_path());
  AIRLLM_TRY(UniqueFd socket, spawn_daemon(path, private_store(globals, path)));
  return Connection(std::move(socket), std::move(path));
}

}  // namespace airllm::client

#include "client/socket_path.h"

#include <sys/stat.h>
#include <unistd.h>

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

// Where a private daemon listens: the first place that is looked at and that we may use.
Result<std::string> private_socket(const Globals& globals) {
  if (const auto path = named_socket(globals)) return *path;
  if (const auto path = user_socket_path()) return *path;
  if (geteuid() == 0) return std::string(kSystemSocket);
  return Unexpected(
      ErrorCode::kUsage,
      "there is no place for a private daemon's socket: XDG_RUNTIME_DIR is not set",
      "name one with --socket PATH, and export AIRLLM_SOCKET=PATH for later commands");
}

}  // namespace

std::optional<std::string> environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::optional<std::string> user_socket_path() {
  std::string folder = environment("XDG_RUNTIME_DIR").value_or("");
  // A relative path there is to be ignored, says the XDG specification.
  if (folder.empty() || folder.front() != '/') {
    folder = "/run/user/" + std::to_string(getuid());
    struct stat status {};
    if (stat(folder.c_str(), &status) != 0 || status.st_uid != getuid()) return std::nullopt;
  }
  return folder + "/airllm/airllm.sock";
}

std::vector<std::string> socket_candidates(const Globals& globals) {
  if (const auto path = named_socket(globals)) return {*path};
  std::vector<std::string> paths;
  if (const auto path = user_socket_path()) paths.push_back(*path);
  paths.emplace_back(kSystemSocket);
  return paths;
}

Result<Connection> Connection::open(const Globals& globals) {
  if (globals.store && !globals.spawn) {
    return Unexpected(ErrorCode::kUsage, "--store is for the daemon that --spawn starts",
                      "a daemon that runs has its own store; see 'airllm status'");
  }
  const std::vector<std::string> candidates = socket_candidates(globals);
  for (const std::string& path : candidates) {
    Result<UniqueFd> socket = connect_socket(path);
    if (socket) return Connection(std::move(socket).value(), path);
    if (socket.error().code != ErrorCode::kUnavailable) return Unexpected(socket.error());
  }
  if (!globals.spawn) return no_daemon(candidates, named_socket(globals).has_value());
  AIRLLM_TRY(std::string path, private_socket(globals));
  const auto store = globals.store ? globals.store : environment("AIRLLM_STORE");
  AIRLLM_TRY(UniqueFd socket, spawn_daemon(path, store));
  return Connection(std::move(socket), std::move(path));
}

}  // namespace airllm::client

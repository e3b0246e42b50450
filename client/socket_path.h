// Where the daemon's socket is: --socket, else AIRLLM_SOCKET, else the user's socket if a daemon
// answers there, else the system's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/args.h"

namespace airllm::client {

inline constexpr const char* kSystemSocket = "/run/airllm/airllm.sock";

// The socket that the user named, and by what.
struct NamedSocket {
  std::string path;
  std::string source;  // "--socket" or "AIRLLM_SOCKET"
};
std::optional<NamedSocket> named_socket(const Globals& globals);

// Paths to try, in order.
std::vector<std::string> socket_candidates(const Globals& globals);
// Where the user's own daemon listens: $XDG_RUNTIME_DIR/airllm/airllm.sock, else the same below
// /run/user/UID, else, where there is no such folder, /tmp/airllm-UID/airllm.sock.
std::string user_socket_path();
// Whether nobody else could have put a socket there: false for a path below /tmp whose folder is
// another's, or can be written by others.
bool is_private_place(const std::string& user_socket_path);
// The log of the daemon at `socket_path`, as a remedy names it: a file or a command.
std::string log_of(const std::string& socket_path);

// A variable of the environment; one that is empty counts as unset.
std::optional<std::string> environment(const char* name);

}  // namespace airllm::client

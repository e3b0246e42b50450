// Where the daemon's socket is: --socket, else AIRLLM_SOCKET, else the user's socket if a daemon
// answers there, else the system's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/args.h"

namespace airllm::client {

inline constexpr const char* kSystemSocket = "/run/airllm/airllm.sock";

// Paths to try, in order.
std::vector<std::string> socket_candidates(const Globals& globals);
// $XDG_RUNTIME_DIR/airllm/airllm.sock, or below /run/user/UID; nothing when there is no such place.
std::optional<std::string> user_socket_path();

// A variable of the environment; one that is empty counts as unset.
std::optional<std::string> environment(const char* name);

}  // namespace airllm::client

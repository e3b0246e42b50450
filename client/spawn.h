// --spawn: starts a private daemon that outlives this program.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::client {

// The program airllmd: beside this one, else on PATH; "" when it is in neither place.
std::string find_daemon();

// Starts airllmd (found beside this program, else on PATH) in a session of its own, listening at
// `socket_path`, with its log in "<socket_path>.log", and connects to it. When it ends, the error
// has its exit status and the last lines of its log; no answer within a minute is kUnavailable.
Result<UniqueFd> spawn_daemon(const std::string& socket_path,
                              const std::optional<std::string>& store);

}  // namespace airllm::client

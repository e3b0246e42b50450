// --spawn: starts a private daemon that outlives this program.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::client {

// Starts airllmd (found beside this program, else on PATH) in a session of its own, listening at
// `socket_path`, with its log in "<socket_path>.log", and connects to it. Its end, or no answer
// within a minute, is kUnavailable with the last lines of its log.
Result<UniqueFd> spawn_daemon(const std::string& socket_path,
                              const std::optional<std::string>& store);

}  // namespace airllm::client

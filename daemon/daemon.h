// The whole daemon: from the command line to the exit status.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"

namespace airllm::daemon {

using OpenEngine =
    std::function<Result<std::unique_ptr<engine::Engine>>(const engine::EngineOptions&)>;

// Runs until a signal ends it; the process's exit status. `args` without the program's name.
int run_daemon(const std::vector<std::string>& args, const OpenEngine& open_engine);

}  // namespace airllm::daemon

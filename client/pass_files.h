// Answers the daemon's open_files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/checkpoint_folder.h"
#include "base/result.h"
#include "client/connection.h"
#include "protocol/messages.h"

namespace airllm::client {

// Passes what `open_file` makes of each name. kProtocol when too many are wanted.
Status pass_files(
    Connection& connection, uint64_t id, const protocol::OpenFiles& wanted,
    const std::function<CheckpointFolder::Opened(const std::string& name)>& open_file);

}  // namespace airllm::client

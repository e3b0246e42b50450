// Models whose weights are read where they lie, at the client's side: which folders this user has
// given for that, and their files for a daemon that may not open them itself.
//
// The daemon names folder and files, and is not trusted: passed are weight files of folders that
// the user has split in place, as base/checkpoint_folder.h opens them. The folders are kept in
// $XDG_STATE_HOME/airllm/in-place (or ~/.local/state/airllm/in-place), a real path a line.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "client/connection.h"
#include "protocol/messages.h"

namespace airllm::client {

// That the files of the folder, a real path, may be passed from now on.
Status remember_in_place(const std::string& real_path);

// Answers an open_files event of a request that is no split.
Status pass_files_in_place(Connection& connection, uint64_t id, const protocol::OpenFiles& wanted);

}  // namespace airllm::client

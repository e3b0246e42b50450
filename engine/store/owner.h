// Who made a model: the file "owner" in its folder, a user's number as text. The models of the
// daemon's own user have none, so a store that was made by hand may become the system's.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "engine/store/disk.h"

namespace airllm::store {

inline constexpr const char* kOwnerName = "owner";

// Nothing when no user is recorded, or what is recorded is no user's number.
std::optional<uid_t> read_owner(Disk& disk, const std::string& folder);

Status write_owner(Disk& disk, const std::string& folder, uid_t owner);

// The whole of `text` as a user's number.
std::optional<uid_t> parse_user(std::string_view text);

}  // namespace airllm::store

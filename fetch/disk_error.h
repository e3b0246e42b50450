// Errors of the disk that data and journal lie on.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>

#include "base/error.h"

namespace airllm::fetch {

inline constexpr std::string_view kDiskFullRemedy =
    "free some disk space, or have the quota raised, then ask again: what is there stays";

// As errno_error(), of a disk.
inline Error disk_error(std::string_view what, int reason) {
  const bool is_full = reason == ENOSPC || reason == EDQUOT;
  return errno_error(what, reason, std::string(is_full ? kDiskFullRemedy : std::string_view()));
}

// Whether the error is that there is no room, for this user or for all.
inline bool is_disk_full(const Error& error) { return error.remedy == kDiskFullRemedy; }

}  // namespace airllm::fetch

// Users and groups of the system by name. Thread-safe.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace airllm {

// The user's name, or its number as text when it has none.
std::string user_name(uid_t user);

// Nothing when there is no group of this name.
std::optional<gid_t> find_group(const std::string& name);

}  // namespace airllm

// Who may connect to a socket: its group, and whether this user and this login are in it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/error.h"

namespace airllm::client {

enum class Membership {
  kMember,      // this process has the group
  kNeedsLogin,  // the group database lists the user, but this login began before
  kNone,
};

// The group that may connect to a socket, and what this process is to it.
struct SocketGroup {
  std::string name;
  Membership membership = Membership::kNone;
};

// The group of the socket at `path`; of the system's socket that cannot be looked at, the group
// "airllm". Nothing when groups do not decide: the socket is not open to its group, or there is
// none.
std::optional<SocketGroup> socket_group(const std::string& path);

// The effective user's name; its number when it has none.
std::string user_name();

// Why this process may not connect to the socket at `path`, and what to do about it: kNoPermission.
Error explain_denial(const std::string& path);

// What brings a user into `group`: a command, and a new login.
std::string join_group_remedy(const SocketGroup& group);

}  // namespace airllm::client

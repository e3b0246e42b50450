// Who is at the other end of a connection, and what the rules let them do.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "daemon/peer.h"
#include "engine/engine.h"

namespace airllm::daemon {

struct User {
  uid_t uid = 0;
  // Root and the daemon's own user: all jobs are theirs to see and cancel, and no quota counts.
  bool is_operator = false;
  // Operators and members of the admin-group: all models are theirs to see, share and remove.
  bool is_admin = false;
};

User user_of(const PeerIdentity& peer, std::optional<gid_t> admin_group);

// What the user asks with, and what they manage: an administrator manages everybody's models, but
// asks with none that another user has not shared.
engine::Viewer viewer_to_ask(const User& user);
engine::Viewer viewer_to_manage(const User& user);

// Whether the user may `verb` ("remove", "share") the model: its owner and administrators.
// kNoPermission, with the rule.
Status check_may_change(const User& user, const engine::FoundModel& found, const std::string& verb);

}  // namespace airllm::daemon

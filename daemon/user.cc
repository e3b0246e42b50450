#include "daemon/user.h"

#include <unistd.h>

#include <algorithm>

#include "base/users.h"

namespace airllm::daemon {

User user_of(const PeerIdentity& peer, std::optional<gid_t> admin_group) {
  User user;
  user.uid = peer.user;
  user.is_operator = peer.user == 0 || peer.user == ::geteuid();
  const bool is_member = admin_group && std::find(peer.groups.begin(), peer.groups.end(),
                                                  *admin_group) != peer.groups.end();
  user.is_admin = user.is_operator || is_member;
  return user;
}

engine::Viewer viewer_to_ask(const User& user) { return {user.uid, false}; }

engine::Viewer viewer_to_manage(const User& user) { return {user.uid, user.is_admin}; }

Status check_may_change(const User& user, const engine::FoundModel& found,
                        const std::string& verb) {
  if (user.is_admin || user.uid == found.owner) return {};
  return Unexpected(
      ErrorCode::kNoPermission,
      "the model " + found.model.name + " belongs to user " + user_name(found.owner) +
          ": only its owner and administrators may " + verb + " it",
      "ask its owner, or one whom the daemon's setting admin-group makes an administrator");
}

}  // namespace airllm::daemon

#include "daemon/peer.h"

#include <sys/socket.h>

#include <cerrno>

namespace airllm::daemon {
namespace {

constexpr size_t kUsualGroups = 32;

}  // namespace

Result<PeerIdentity> peer_identity(int socket) {
  constexpr const char* kWhat = "cannot tell who connected";
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return Unexpected(errno_error(kWhat, errno));
  }
  PeerIdentity peer{credentials.uid, std::vector<gid_t>(kUsualGroups)};
  // SO_PEERCRED tells one group; membership is mostly a supplementary one. When there is no room
  // for them all the kernel tells how much there must be.
  length = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
  while (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0) {
    if (errno != ERANGE) return Unexpected(errno_error(kWhat, errno));
    peer.groups.resize(length / sizeof(gid_t));
  }
  peer.groups.resize(length / sizeof(gid_t));
  peer.groups.push_back(credentials.gid);
  return peer;
}

}  // namespace airllm::daemon

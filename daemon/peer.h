// Who is at the other end of a Unix socket.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/result.h"

namespace airllm::daemon {

// As the kernel noted when it connected.
struct PeerIdentity {
  uid_t user = 0;
  std::vector<gid_t> groups;  // its own and all supplementary ones
};
Result<PeerIdentity> peer_identity(int socket);

}  // namespace airllm::daemon

// Bytes and descriptors from a Unix socket's peer.
#pragma once

#include <sys/types.h>

#include <deque>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::daemon {

struct Received {
  size_t bytes = 0;  // of the buffer
  bool at_end = false;
  bool would_block = false;
  std::vector<UniqueFd> descriptors;  // close-on-exec
};

// One recvmsg() that does not wait. More descriptors than a message may carry are a kProtocol error
// (all are closed); a broken connection counts as its end.
Result<Received> receive(int socket, std::span<char> buffer);

// Who is at the other end of the socket, as the kernel noted when it connected.
struct PeerIdentity {
  uid_t user = 0;
  std::vector<gid_t> groups;  // its own and all supplementary ones
};
Result<PeerIdentity> peer_identity(int socket);

// Which frame received descriptors belong to. The kernel ends a receive with the bytes that the
// descriptors came with, so they belong to the frame that holds the last byte of that receive.
class DescriptorQueue {
 public:
  // `end` counts the stream's bytes so far. kProtocol when too many wait for their frame's end.
  Status add(std::vector<UniqueFd> descriptors, uint64_t end);
  // Those of the frame that ends at byte `frame_end` of the stream.
  std::vector<UniqueFd> take(uint64_t frame_end);

 private:
  struct Group {
    uint64_t end;
    std::vector<UniqueFd> descriptors;
  };
  std::deque<Group> groups_;
  size_t held_ = 0;
};

}  // namespace airllm::daemon

// Bytes and descriptors (SCM_RIGHTS) over a Unix stream socket, without waiting.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm {

// Descriptors that one message may carry.
inline constexpr size_t kMaxPassedDescriptors = 64;

struct Received {
  size_t bytes = 0;  // of the buffer
  bool at_end = false;
  bool would_block = false;
  std::vector<UniqueFd> descriptors;  // close-on-exec
};

// One recvmsg() that does not wait. More descriptors than a message may carry are a kProtocol error
// (all are closed); a broken connection counts as its end.
Result<Received> receive(int socket, std::span<char> buffer);

// One sendmsg() that does not wait and raises no SIGPIPE. How many bytes were sent, or -1 with
// errno. The descriptors, at most kMaxPassedDescriptors, travel with the first byte.
ssize_t send_some(int socket, std::string_view bytes, std::span<const int> descriptors = {});

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

}  // namespace airllm

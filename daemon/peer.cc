#include "daemon/peer.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "protocol/messages.h"

namespace airllm::daemon {
namespace {

constexpr size_t kUsualGroups = 32;

Unexpected too_many() {
  return Unexpected(ErrorCode::kProtocol, "more than " + std::to_string(protocol::kMaxDescriptors) +
                                              " descriptors came with a message");
}

std::vector<UniqueFd> descriptors_of(msghdr& header) {
  std::vector<UniqueFd> out;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      out.emplace_back(fd);
    }
  }
  return out;
}

}  // namespace

Result<Received> receive(int socket, std::span<char> buffer) {
  alignas(cmsghdr) char control[CMSG_SPACE(protocol::kMaxDescriptors * sizeof(int))];
  iovec piece{buffer.data(), buffer.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t size = 0;
  do {
    size = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (size < 0 && errno == EINTR);
  Received received;
  if (size < 0) {
    received.would_block = errno == EAGAIN || errno == EWOULDBLOCK;
    received.at_end = !received.would_block;
    return received;
  }
  received.descriptors = descriptors_of(header);
  if ((header.msg_flags & MSG_CTRUNC) != 0) return too_many();
  received.bytes = static_cast<size_t>(size);
  received.at_end = size == 0;
  return received;
}

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

Status DescriptorQueue::add(std::vector<UniqueFd> descriptors, uint64_t end) {
  if (descriptors.empty()) return {};
  if (held_ + descriptors.size() > protocol::kMaxDescriptors) return too_many();
  held_ += descriptors.size();
  groups_.push_back({end, std::move(descriptors)});
  return {};
}

std::vector<UniqueFd> DescriptorQueue::take(uint64_t frame_end) {
  std::vector<UniqueFd> out;
  while (!groups_.empty() && groups_.front().end <= frame_end) {
    for (UniqueFd& fd : groups_.front().descriptors) out.push_back(std::move(fd));
    groups_.pop_front();
  }
  held_ -= out.size();
  return out;
}

}  // namespace airllm::daemon

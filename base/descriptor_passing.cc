#include "base/descriptor_passing.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace airllm {
namespace {

Unexpected too_many() {
  return Unexpected(ErrorCode::kProtocol, "more than " + std::to_string(kMaxPassedDescriptors) +
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

// Puts `descriptors` into the control part of `header`; `space` holds them.
void attach(msghdr& header, std::vector<char>& space, std::span<const int> descriptors) {
  if (descriptors.empty()) return;
  const size_t bytes = descriptors.size_bytes();
  space.assign(CMSG_SPACE(bytes), 0);
  header.msg_control = space.data();
  header.msg_controllen = space.size();
  cmsghdr* const control = CMSG_FIRSTHDR(&header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(bytes);
  std::memcpy(CMSG_DATA(control), descriptors.data(), bytes);
}

}  // namespace

Result<Received> receive(int socket, std::span<char> buffer) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassedDescriptors * sizeof(int))];
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

ssize_t send_some(int socket, std::string_view bytes, std::span<const int> descriptors) {
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  std::vector<char> space;
  attach(header, space, descriptors);
  return ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

Status DescriptorQueue::add(std::vector<UniqueFd> descriptors, uint64_t end) {
  if (descriptors.empty()) return {};
  if (held_ + descriptors.size() > kMaxPassedDescriptors) return too_many();
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

}  // namespace airllm

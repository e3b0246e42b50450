#include "fetch/replies.h"

#include <cerrno>

#include "base/check.h"
#include "base/descriptor_passing.h"

namespace airllm::fetch {

void Replies::send(const protocol::FromFetch& message) {
  auto frame = protocol::encode_from_fetch(message);
  AIRLLM_CHECK(frame.has_value());  // every message of ours fits a frame
  bytes_ += frame->size();
  frames_.push_back(std::move(*frame));
}

Status Replies::flush(int socket) {
  while (!frames_.empty()) {
    const std::string& frame = frames_.front();
    const ssize_t put = send_some(socket, std::string_view(frame).substr(sent_));
    if (put < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return {};
      return Unexpected(ErrorCode::kUnavailable, "the daemon is gone");
    }
    sent_ += static_cast<size_t>(put);
    bytes_ -= static_cast<size_t>(put);
    if (sent_ < frame.size()) continue;
    frames_.pop_front();
    sent_ = 0;
  }
  return {};
}

}  // namespace airllm::fetch

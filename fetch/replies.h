// What waits to be sent to the daemon. Belongs to the loop's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "base/result.h"
#include "protocol/fetch_messages.h"

namespace airllm::fetch {

class Replies {
 public:
  void send(const protocol::FromFetch& message);
  void event(uint64_t id, protocol::FetchEventBody body) {
    send(protocol::FetchEvent{id, std::move(body)});
  }

  bool empty() const { return frames_.empty(); }
  size_t waiting_bytes() const { return bytes_; }
  // Who sends much waits while this does not hold.
  bool has_room() const { return bytes_ < kEnough; }

  // Writes what the socket takes without waiting. kUnavailable when the peer is gone.
  Status flush(int socket);

 private:
  static constexpr size_t kEnough = size_t{4} << 20;

  std::deque<std::string> frames_;
  size_t sent_ = 0;  // of the first
  size_t bytes_ = 0;
};

}  // namespace airllm::fetch

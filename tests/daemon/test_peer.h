// The client's side of a connection, for tests: blocking, with a deadline on every wait.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "protocol/framing.h"

namespace airllm::daemon {

class TestPeer {
 public:
  explicit TestPeer(UniqueFd socket) : socket_(std::move(socket)) {}
  // Connects; aborts the test program when nobody listens.
  static TestPeer connect(const std::string& path);

  void send(const protocol::ClientMessage& message, std::span<const int> descriptors = {});
  // False when the other side is gone.
  bool send_raw(std::string_view bytes, std::span<const int> descriptors = {});
  void hello();  // sends ours and takes theirs
  void request(uint64_t id, protocol::Params params);
  void generate(uint64_t id, const std::string& model);

  // The next message; nothing at the connection's end or after ten seconds.
  std::optional<protocol::ServerMessage> receive();
  std::optional<protocol::Event> event();
  // The next event of this kind, others dropped.
  template <typename Body>
  std::optional<Body> wait_for(uint64_t id) {
    while (auto next = event()) {
      if (next->id != id) continue;
      if (auto* body = std::get_if<Body>(&next->body)) return std::move(*body);
    }
    return std::nullopt;
  }
  // The end of request `id` that has to be an error.
  Error failure(uint64_t id);
  // Reads to the end; false when it does not come.
  bool reaches_end();

  int fd() const { return socket_.get(); }
  void close() { socket_.reset(); }

 private:
  bool fill();

  UniqueFd socket_;
  protocol::FrameReader frames_;
};

}  // namespace airllm::daemon

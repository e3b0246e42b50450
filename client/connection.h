// One connection to the daemon: frames out with descriptors, frames in. The peer is not trusted:
// what it sends is decoded by protocol/, and descriptors that it sends are dropped by the kernel.
//
// Not thread-safe. Reads and writes do not block; waits include the signals of signals.h.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "client/connector.h"
#include "protocol/framing.h"
#include "protocol/messages.h"

namespace airllm::client {

class Connection {
 public:
  // The daemon that `globals` and the environment name; with --spawn one that was started now. Both
  // sides have said hello then. One that restarts is waited for (patience.h).
  static Result<Connection> open(const Globals& globals);
  // Connects again, in place of this connection, once the daemon said that it is stopping: `why`,
  // which is the result when no other comes in time.
  Status reopen(const Error& why);

  // Sends one message. Reads while it waits, so that a daemon that talks first does not block us. A
  // daemon that went away is not an error here: what it said last can still be received.
  Status send(const protocol::ClientMessage& message, std::span<const int> descriptors = {});

  enum class Wake { kMessage, kSignal, kTimeout };
  struct Received {
    Wake wake = Wake::kTimeout;
    protocol::ServerMessage message;  // with kMessage
  };
  // The next message, or why there is none. With `heed_signals`, a caught signal ends the wait.
  // `timeout_ms` < 0 waits for ever. The end of the connection is kUnavailable.
  Result<Received> receive(int timeout_ms, bool heed_signals);

  // A number for the next request.
  uint64_t next_id() { return ++last_id_; }
  // The socket's path.
  const std::string& name() const { return name_; }
  const protocol::Hello& daemon_hello() const { return *heard_hello_; }

 private:
  explicit Connection(Connector connector) : connector_(std::move(connector)) {}
  Status connect();
  void start_over(Connector::Found found);
  Status greet();
  Result<Received> receive_any(int timeout_ms, bool heed_signals);
  Status send_bytes(std::string_view bytes, std::span<const int> descriptors);
  Result<bool> read_available();
  Result<std::optional<protocol::ServerMessage>> take_message();
  Status take_hello(const protocol::Hello& hello);
  Unexpected gone() const;

  Connector connector_;
  UniqueFd socket_;
  std::string name_;
  protocol::FrameReader frames_;
  uint64_t last_id_ = 0;
  std::optional<protocol::Hello> heard_hello_;
  bool at_end_ = false;  // the daemon closed its side
  bool can_send_ = true;
  bool watch_stdout_ = true;
};

}  // namespace airllm::client

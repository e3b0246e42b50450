// A daemon that follows a script: it speaks the protocol, or breaks it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/framing.h"
#include "protocol/messages.h"
#include "tests/client/run_program.h"

namespace airllm::client {

// One client's connection, as the script sees it.
class Peer {
 public:
  explicit Peer(UniqueFd socket) : socket_(std::move(socket)) {}

  // The next message; nothing when the client closed.
  std::optional<protocol::ClientMessage> read();
  // Reads until a request; also remembers the hello. Answers the hello with one of ours.
  protocol::Request read_request();
  // The next message, if it is one of this kind.
  template <typename T>
  std::optional<T> read_as() {
    const std::optional<protocol::ClientMessage> message = read();
    if (!message || !std::holds_alternative<T>(*message)) return std::nullopt;
    return std::get<T>(*message);
  }
  // Descriptors that came so far, in order; the caller owns them from then on.
  std::vector<UniqueFd> take_descriptors() { return std::move(descriptors_); }

  void send(const protocol::ServerMessage& message);
  void event(uint64_t id, protocol::EventBody body);
  void send_raw(const std::string& bytes);
  void close() { socket_.reset(); }

 private:
  UniqueFd socket_;
  protocol::FrameReader frames_;
  std::vector<UniqueFd> descriptors_;
};

// Listens in a temporary folder and runs `script` for each client, one after the other, in a
// thread of its own until the object goes away.
class FakeDaemon {
 public:
  using Script = std::function<void(Peer&)>;
  explicit FakeDaemon(Script script);
  ~FakeDaemon();
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  std::string socket() const { return folder_ / "airllm.sock"; }
  // Runs airllm against this daemon.
  Finished run(std::vector<std::string> args, RunOptions options = {}) const;
  // Prepares args and environment alike for a Running.
  RunOptions with_socket(RunOptions options) const;

 private:
  TemporaryFolder folder_;
  UniqueFd listener_;
  UniqueFd stop_;
  std::jthread thread_;
};

// An answer: accepted, one token for each piece, the end.
FakeDaemon::Script answers(const std::vector<std::string>& pieces);
// One request that ends with this JSON.
FakeDaemon::Script replies(const std::string& result_json);
FakeDaemon::Script fails(ErrorCode code, const std::string& message, const std::string& remedy);

}  // namespace airllm::client

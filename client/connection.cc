#include "client/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/descriptor_passing.h"
#include "base/version.h"
#include "client/output.h"
#include "client/signals.h"
#include "client/socket_path.h"

namespace airllm::client {
namespace {

using Clock = std::chrono::steady_clock;

// A daemon that takes a connection greets at once, unless it is being started.
constexpr int kSilenceMs = 1000;

// While a long message is sent, more than this is left in the kernel.
constexpr size_t kMaxUnreadBytes = size_t{64} << 20;

// A daemon that refuses a connection says so without a hello.
bool is_refusal(const protocol::ServerMessage& message) {
  const auto* event = std::get_if<protocol::Event>(&message);
  return event != nullptr && event->id == 0 &&
         std::holds_alternative<protocol::Failed>(event->body);
}

int remaining_ms(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

}  // namespace

Result<Connection> Connection::open(const Globals& globals) {
  AIRLLM_TRY(Connector connector, Connector::create(globals));
  Connection connection(std::move(connector));
  AIRLLM_TRY_VOID(connection.connect());
  return connection;
}

Status Connection::reopen(const Error& why) {
  AIRLLM_TRY_VOID(connector_.wait_after(why));
  Status again = connect();
  if (!again && again.error().code == ErrorCode::kUnavailable) return Unexpected(why);
  return again;
}

Status Connection::connect() {
  for (;;) {
    AIRLLM_TRY(Connector::Found found, connector_.connect());
    start_over(std::move(found));
    const Status greeted = greet();
    if (greeted || greeted.error().code != ErrorCode::kUnavailable) return greeted;
    AIRLLM_TRY_VOID(connector_.wait_after(greeted.error()));
  }
}

void Connection::start_over(Connector::Found found) {
  socket_ = std::move(found.socket);
  name_ = std::move(found.path);
  frames_ = protocol::FrameReader();
  heard_hello_.reset();
  at_end_ = false;
  can_send_ = true;
}

// Says hello and waits for the daemon's: kUnavailable when it is stopping, goes away, or does not
// answer in the time that the user gives.
Status Connection::greet() {
  protocol::Hello ours;
  ours.program = std::string("airllm ") + kProgramVersion;
  AIRLLM_TRY_VOID(send(protocol::ClientMessage(std::move(ours))));
  const auto deadline = connector_.patience().greeting_deadline();
  int timeout_ms = deadline ? std::min(remaining_ms(*deadline), kSilenceMs) : kSilenceMs;
  for (;;) {
    AIRLLM_TRY(const Received received, receive_any(timeout_ms, true));
    if (received.wake == Wake::kSignal) return Unexpected(ErrorCode::kCancelled, "cancelled");
    if (received.wake == Wake::kTimeout) {
      const std::string silent = "the daemon at " + name_ + " has not answered yet";
      if (deadline && Clock::now() >= *deadline) {
        return Unexpected(ErrorCode::kUnavailable, silent,
                          "it may be starting or hang: look at 'airllm doctor' and at its log");
      }
      connector_.patience().notify(silent);
      timeout_ms = deadline ? remaining_ms(*deadline) : -1;
    } else if (const auto* event = std::get_if<protocol::Event>(&received.message)) {
      // Instead of a hello: it takes no client now, or none of our version.
      return Unexpected(std::get<protocol::Failed>(event->body).error);
    } else {
      connector_.patience().greeted();
      return {};
    }
  }
}

Unexpected Connection::gone() const {
  return Unexpected(
      ErrorCode::kUnavailable, "the daemon at " + name_ + " went away before it had finished",
      "look at its log (" + log_of(name_) + "), start it again and repeat the command");
}

Status Connection::send(const protocol::ClientMessage& message, std::span<const int> descriptors) {
  AIRLLM_TRY(const std::string bytes, protocol::encode(message));
  return send_bytes(bytes, descriptors);
}

Status Connection::send_bytes(std::string_view bytes, std::span<const int> descriptors) {
  while (!bytes.empty() && can_send_) {
    const ssize_t sent = send_some(socket_.get(), bytes, descriptors);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      descriptors = {};  // they travel with the first byte
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) {
      can_send_ = false;
    } else if (errno == EAGAIN) {
      const bool reads = !at_end_ && frames_.pending_bytes() < kMaxUnreadBytes;
      const auto events = static_cast<short>(POLLOUT | (reads ? POLLIN : 0));
      std::array<pollfd, 2> waits{pollfd{socket_.get(), events, 0},
                                  pollfd{signal_wake_fd(), POLLIN, 0}};
      if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) {
        return Unexpected(errno_error("cannot wait for the daemon", errno));
      }
      if (caught_signal() != 0) return Unexpected(ErrorCode::kCancelled, "cancelled");
      if ((waits[0].revents & POLLIN) != 0) AIRLLM_TRY_VOID(read_available());
    } else {
      return Unexpected(errno_error("cannot write to the daemon at " + name_, errno));
    }
  }
  return {};
}

// Reads what is there. False when nothing was, or at the end.
Result<bool> Connection::read_available() {
  std::array<char, 65536> buffer;
  const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got > 0) {
    frames_.append(std::string_view(buffer.data(), static_cast<size_t>(got)));
    return true;
  }
  if (got == 0 || errno == ECONNRESET || errno == EPIPE) {
    at_end_ = true;
  } else if (errno != EAGAIN && errno != EINTR) {
    return Unexpected(errno_error("cannot read from the daemon at " + name_, errno));
  }
  return false;
}

Status Connection::take_hello(const protocol::Hello& hello) {
  heard_hello_ = hello;
  if (hello.version == protocol::kProtocolVersion) return {};
  return Unexpected(ErrorCode::kProtocol,
                    "the daemon at " + name_ + " (" + hello.program + ") speaks version " +
                        std::to_string(hello.version) + " of the protocol; this program speaks " +
                        std::to_string(protocol::kProtocolVersion),
                    "install the same release of airllm and airllmd, and restart the daemon");
}

Result<std::optional<protocol::ServerMessage>> Connection::take_message() {
  using Taken = std::optional<protocol::ServerMessage>;
  AIRLLM_TRY(const std::optional<std::string> payload, frames_.next());
  if (!payload) return Taken();
  AIRLLM_TRY(protocol::ServerMessage message, protocol::decode_server_message(*payload));
  if (const auto* hello = std::get_if<protocol::Hello>(&message)) {
    AIRLLM_TRY_VOID(take_hello(*hello));
  } else if (!heard_hello_ && !is_refusal(message)) {
    return Unexpected(ErrorCode::kProtocol, "what answers at " + name_ + " is no airllm daemon",
                      "check --socket and AIRLLM_SOCKET");
  }
  return Taken(std::move(message));
}

Result<Connection::Received> Connection::receive(int timeout_ms, bool heed_signals) {
  for (;;) {
    AIRLLM_TRY(Received received, receive_any(timeout_ms, heed_signals));
    const bool is_hello = received.wake == Wake::kMessage &&
                          std::holds_alternative<protocol::Hello>(received.message);
    if (!is_hello) return received;
  }
}

Result<Connection::Received> Connection::receive_any(int timeout_ms, bool heed_signals) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(std::max(timeout_ms, 0));
  for (;;) {
    // Before what has come already: a cancel should not wait for it to be printed.
    if (heed_signals && caught_signal() != 0) return Received{Wake::kSignal, {}};
    AIRLLM_TRY(std::optional<protocol::ServerMessage> message, take_message());
    if (message) return Received{Wake::kMessage, std::move(*message)};
    if (at_end_) return gone();
    std::array<pollfd, 3> waits{pollfd{socket_.get(), POLLIN, 0},
                                pollfd{heed_signals ? signal_wake_fd() : -1, POLLIN, 0},
                                pollfd{watch_stdout_ ? STDOUT_FILENO : -1, 0, 0}};
    const int wait_ms = timeout_ms < 0 ? -1 : remaining_ms(deadline);
    const int ready = poll(waits.data(), waits.size(), wait_ms);
    if (ready < 0 && errno != EINTR) {
      return Unexpected(errno_error("cannot wait for the daemon", errno));
    }
    if (ready == 0) return Received{Wake::kTimeout, {}};
    if (ready < 0) continue;
    end_if_stdout_closed(waits[2].revents);
    // A terminal that hung up would end every wait at once.
    if (waits[2].revents != 0) watch_stdout_ = false;
    if (waits[0].revents != 0) AIRLLM_TRY_VOID(read_available());
  }
}

}  // namespace airllm::client

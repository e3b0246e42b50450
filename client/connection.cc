#include "client/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/version.h"
#include "client/output.h"
#include "client/signals.h"
#include "client/socket_path.h"

namespace airllm::client {
namespace {

using Clock = std::chrono::steady_clock;

// While a long message is sent, more than this is left in the kernel.
constexpr size_t kMaxUnreadBytes = size_t{64} << 20;

int remaining_ms(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
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

ssize_t send_some(int socket, std::string_view bytes, std::span<const int> descriptors) {
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  std::vector<char> space;
  attach(header, space, descriptors);
  return sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// A daemon that refuses a connection says so without a hello.
bool is_refusal(const protocol::ServerMessage& message) {
  const auto* event = std::get_if<protocol::Event>(&message);
  return event != nullptr && event->id == 0 &&
         std::holds_alternative<protocol::Failed>(event->body);
}

}  // namespace

Result<UniqueFd> connect_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Unexpected(ErrorCode::kUsage,
                      "the socket path '" + path + "' has " + std::to_string(path.size()) +
                          " bytes; a Unix socket's path has 1 to " +
                          std::to_string(sizeof address.sun_path - 1) + " bytes",
                      "choose a shorter path for the daemon's --socket and for ours");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Unexpected(errno_error("cannot make a socket", errno));
  int result = 0;
  do {
    result = connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result != 0 && errno == EINTR && caught_signal() == 0);
  if (result == 0) return socket;
  Error error = errno_error("cannot connect to " + path, errno);
  if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR) {
    error.code = ErrorCode::kUnavailable;
  } else if (error.code == ErrorCode::kNoPermission) {
    error.remedy =
        "the socket's owner and the members of its group may connect; for the system's daemon: "
        "sudo adduser $USER airllm, then log in again";
  } else if (errno == EINTR) {
    error.code = ErrorCode::kCancelled;
  }
  return Unexpected(std::move(error));
}

Connection::Connection(UniqueFd socket, std::string name)
    : socket_(std::move(socket)), name_(std::move(name)) {}

Unexpected Connection::gone() const {
  return Unexpected(
      ErrorCode::kUnavailable, "the daemon at " + name_ + " went away before it had finished",
      "look at its log (" + log_of(name_) + "), start it again and repeat the command");
}

Status Connection::send(const protocol::ClientMessage& message, std::span<const int> descriptors) {
  std::string hello_bytes;
  if (!said_hello_) {
    protocol::Hello hello;
    hello.program = std::string("airllm ") + kProgramVersion;
    AIRLLM_TRY(hello_bytes, protocol::encode(protocol::ClientMessage(std::move(hello))));
  }
  AIRLLM_TRY(const std::string bytes, protocol::encode(message));
  if (!hello_bytes.empty()) {
    AIRLLM_TRY_VOID(send_bytes(hello_bytes, {}));
    said_hello_ = true;
  }
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

Status Connection::check_hello(const protocol::Hello& hello) {
  heard_hello_ = true;
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
    AIRLLM_TRY_VOID(check_hello(*hello));
  } else if (!heard_hello_ && !is_refusal(message)) {
    return Unexpected(ErrorCode::kProtocol, "what answers at " + name_ + " is no airllm daemon",
                      "check --socket and AIRLLM_SOCKET");
  }
  return Taken(std::move(message));
}

Result<Connection::Received> Connection::receive(int timeout_ms, bool heed_signals) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(std::max(timeout_ms, 0));
  for (;;) {
    // Before what has come already: a cancel should not wait for it to be printed.
    if (heed_signals && caught_signal() != 0) return Received{Wake::kSignal, {}};
    AIRLLM_TRY(std::optional<protocol::ServerMessage> message, take_message());
    if (message) {
      if (std::holds_alternative<protocol::Hello>(*message)) continue;
      return Received{Wake::kMessage, std::move(*message)};
    }
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

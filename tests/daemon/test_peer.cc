#include "tests/daemon/test_peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <vector>

namespace airllm::daemon {
namespace {

constexpr int kPatienceMs = 10000;

}  // namespace

TestPeer TestPeer::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  AIRLLM_CHECK(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  AIRLLM_CHECK(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) ==
               0);
  return TestPeer(std::move(socket));
}

bool TestPeer::send_raw(std::string_view bytes, std::span<const int> descriptors) {
  std::vector<char> control(CMSG_SPACE(descriptors.size_bytes()));
  while (!bytes.empty()) {
    iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (!descriptors.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = control.size();
      cmsghdr* part = CMSG_FIRSTHDR(&header);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
    descriptors = {};
  }
  return true;
}

void TestPeer::send(const protocol::ClientMessage& message, std::span<const int> descriptors) {
  auto frame = protocol::encode(message);
  AIRLLM_CHECK(frame.has_value());
  send_raw(*frame, descriptors);
}

void TestPeer::hello() {
  send(protocol::Hello{});
  const auto answer = receive();
  AIRLLM_CHECK(answer && std::holds_alternative<protocol::Hello>(*answer));
}

void TestPeer::request(uint64_t id, protocol::Params params) {
  send(protocol::Request{id, std::move(params)});
}

void TestPeer::generate(uint64_t id, const std::string& model) {
  protocol::GenerateParams params;
  params.model = model;
  params.raw_text = "once";
  request(id, std::move(params));
}

bool TestPeer::fill() {
  pollfd wait{socket_.get(), POLLIN, 0};
  if (::poll(&wait, 1, kPatienceMs) <= 0) return false;
  std::array<char, 65536> buffer;
  const ssize_t size = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (size <= 0) return false;
  frames_.append({buffer.data(), static_cast<size_t>(size)});
  return true;
}

std::optional<protocol::ServerMessage> TestPeer::receive() {
  while (true) {
    auto payload = frames_.next();
    AIRLLM_CHECK(payload.has_value());
    if (*payload) {
      auto message = protocol::decode_server_message(**payload);
      AIRLLM_CHECK(message.has_value());
      return std::move(*message);
    }
    if (!fill()) return std::nullopt;
  }
}

std::optional<protocol::Event> TestPeer::event() {
  auto message = receive();
  if (!message || !std::holds_alternative<protocol::Event>(*message)) return std::nullopt;
  return std::move(std::get<protocol::Event>(*message));
}

Error TestPeer::failure(uint64_t id) {
  auto failed = wait_for<protocol::Failed>(id);
  if (!failed) return {ErrorCode::kInternal, "no error came", ""};
  return failed->error;
}

bool TestPeer::reaches_end() {
  while (true) {
    pollfd wait{socket_.get(), POLLIN, 0};
    if (::poll(&wait, 1, kPatienceMs) <= 0) return false;
    std::array<char, 65536> buffer;
    if (::recv(socket_.get(), buffer.data(), buffer.size(), 0) <= 0) return true;
  }
}

}  // namespace airllm::daemon

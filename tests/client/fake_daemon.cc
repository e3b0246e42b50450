#include "tests/client/fake_daemon.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/check.h"

namespace airllm::client {
namespace {

// Owns the descriptors of one received message.
void take_rights(const msghdr& header, std::vector<UniqueFd>& out) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
       control = CMSG_NXTHDR(const_cast<msghdr*>(&header), control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof fd, sizeof fd);
      out.emplace_back(fd);
    }
  }
}

}  // namespace

std::optional<protocol::ClientMessage> Peer::read() {
  for (;;) {
    Result<std::optional<std::string>> payload = frames_.next();
    AIRLLM_CHECK(payload.has_value());
    if (*payload) {
      Result<protocol::ClientMessage> message = protocol::decode_client_message(**payload);
      AIRLLM_CHECK(message.has_value());
      return std::move(message).value();
    }
    std::array<char, 65536> buffer;
    std::array<char, CMSG_SPACE(sizeof(int) * 128)> control{};
    iovec piece{buffer.data(), buffer.size()};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (got <= 0) return std::nullopt;
    take_rights(header, descriptors_);
    frames_.append(std::string_view(buffer.data(), static_cast<size_t>(got)));
  }
}

protocol::Request Peer::read_request() {
  for (;;) {
    const std::optional<protocol::ClientMessage> message = read();
    if (!message) return {};
    if (std::holds_alternative<protocol::Hello>(*message)) {
      protocol::Hello hello;
      hello.program = "airllmd test";
      send(hello);
    }
    if (const auto* request = std::get_if<protocol::Request>(&*message)) return *request;
  }
}

void Peer::send(const protocol::ServerMessage& message) {
  Result<std::string> bytes = protocol::encode(message);
  AIRLLM_CHECK(bytes.has_value());
  send_raw(*bytes);
}

void Peer::event(uint64_t id, protocol::EventBody body) {
  send(protocol::Event{id, std::move(body)});
}

void Peer::send_raw(const std::string& bytes) {
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const ssize_t sent = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the client is gone
    rest.remove_prefix(static_cast<size_t>(sent));
  }
}

FakeDaemon::FakeDaemon(Script script)
    : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), stop_(eventfd(0, EFD_CLOEXEC)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = socket();
  AIRLLM_CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  AIRLLM_CHECK(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  AIRLLM_CHECK(listen(listener_.get(), 8) == 0);
  thread_ = std::jthread([this, script = std::move(script)](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::array<pollfd, 2> waits{pollfd{listener_.get(), POLLIN, 0},
                                  pollfd{stop_.get(), POLLIN, 0}};
      if (poll(waits.data(), waits.size(), -1) < 0 || waits[1].revents != 0) continue;
      Peer peer(UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
      script(peer);
    }
  });
}

FakeDaemon::~FakeDaemon() {
  thread_.request_stop();
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof one);
}

RunOptions FakeDaemon::with_socket(RunOptions options) const {
  options.environment.push_back("AIRLLM_SOCKET=" + socket());
  options.environment.push_back("HOME=" + folder_.path());
  return options;
}

Finished FakeDaemon::run(std::vector<std::string> args, RunOptions options) const {
  return run_airllm(args, with_socket(std::move(options)));
}

FakeDaemon::Script answers(const std::vector<std::string>& pieces) {
  return [pieces](Peer& peer) {
    const protocol::Request request = peer.read_request();
    protocol::Accepted accepted;
    accepted.job = 7;
    accepted.model = "tiny";
    accepted.prompt_tokens = 3;
    accepted.seed = 18446744073709551615U;
    accepted.options.temperature = 0.1;
    accepted.options.top_k = 0;
    accepted.options.top_p = 1;
    accepted.options.min_p = 0;
    accepted.options.repetition_penalty = 1;
    peer.event(request.id, accepted);
    int32_t id = 100;
    for (const std::string& piece : pieces) {
      peer.event(request.id, protocol::Token{id++, piece, {{5, -0.25}, {6, -1.5}}});
    }
    protocol::Generated end;
    end.finish_reason = "stop";
    end.prompt_tokens = 3;
    end.completion_tokens = pieces.size();
    end.queued_ms = 0.5;
    end.first_token_ms = 1.25;
    end.total_ms = 2;
    end.sweeps = 4;
    end.read_bytes = 1000;
    end.cache_bytes = 2000;
    peer.event(request.id, end);
    peer.read();
  };
}

FakeDaemon::Script replies(const std::string& result_json) {
  return [result_json](Peer& peer) {
    for (protocol::Request request = peer.read_request(); request.id != 0;
         request = peer.read_request()) {
      peer.event(request.id, protocol::Done{result_json});
    }
  };
}

FakeDaemon::Script fails(ErrorCode code, const std::string& message, const std::string& remedy) {
  return [=](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Failed{{code, message, remedy}});
    peer.read();
  };
}

}  // namespace airllm::client

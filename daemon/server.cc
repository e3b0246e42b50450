#include "daemon/server.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace airllm::daemon {
namespace {

constexpr int kAcceptsPerTurn = 16;
// Out of descriptors: others must close some first.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

}  // namespace

Server::Server(asio::io_context& io, engine::Engine& engine, DefaultModel default_model,
               ServerOptions options, std::function<void()> on_stopped)
    : io_(io),
      engine_(engine),
      options_(std::move(options)),
      jobs_(engine),
      default_model_(std::move(default_model)),
      context_{engine_, jobs_, default_model_, options_, std::chrono::steady_clock::now()},
      on_stopped_(std::move(on_stopped)),
      listening_(io),
      accept_timer_(io),
      stop_timer_(io) {}

Server::~Server() {
  for (const auto& connection : std::exchange(connections_, {})) connection->close();
}

Status Server::start(int listening_fd) {
  const int fd = ::fcntl(listening_fd, F_DUPFD_CLOEXEC, 3);
  if (fd < 0) return Unexpected(errno_error("cannot listen", errno));
  listening_.assign(fd);
  wait_for_clients();
  return {};
}

void Server::wait_for_clients() {
  listening_.async_wait(asio::posix::stream_descriptor::wait_read,
                        [this](const std::error_code& error) {
                          if (!error) accept_some();
                        });
}

void Server::accept_some() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    if (!accept_one()) return;
  }
  wait_for_clients();
}

bool Server::accept_one() {
  UniqueFd client(
      ::accept4(listening_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (client.valid()) {
    admit(std::move(client));
    return true;
  }
  if (errno == EINTR || errno == ECONNABORTED) return true;
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    wait_for_clients();
    return false;
  }
  log::error("{}", errno_error("cannot accept a client", errno).message);
  accept_timer_.expires_after(kAcceptPause);
  accept_timer_.async_wait([this](const std::error_code& error) {
    if (!error) wait_for_clients();
  });
  return false;
}

void Server::admit(UniqueFd client) {
  auto user = peer_user(client.get());
  if (!user) {
    log::error("{}", user.error().message);
    return;
  }
  Connection::Socket socket(io_);
  std::error_code error;
  socket.assign(asio::local::stream_protocol(), client.get(), error);
  if (error) {
    log::error("cannot take a client: {}", error.message());
    return;
  }
  client.release();
  const bool full = connections_.size() >= options_.max_connections;
  auto connection = Connection::make(io_, std::move(socket), *user, context_,
                                     [this](Connection& gone) { closed(gone); });
  // Those that are being refused count too, for a second: nobody can hold more than twice as many.
  if (connections_.size() >= 2 * options_.max_connections) return connection->close();
  connections_.insert(connection);
  connection->start();
  if (full) {
    connection->refuse({ErrorCode::kTemporary,
                        "the daemon has " + std::to_string(options_.max_connections) +
                            " clients, as many as it may have",
                        "try again later, or give the daemon a larger --max-connections"});
  } else if (finishing_) {
    connection->refuse(engine::stopping_error());
  }
}

void Server::closed(Connection& connection) {
  connections_.erase(connection.shared_from_this());
  check_stopped();
}

void Server::stop() {
  engine_.close_admission();
  if (std::exchange(context_.stopping, true)) return end_jobs();
  if (options_.socket_stays) stop_accepting();
  if (jobs_.size() == 0) return finish_connections();
  jobs_.on_empty([this] {
    // From a fresh stack: the last job ends inside its connection.
    asio::post(io_, [this] { finish_connections(); });
  });
  stop_timer_.expires_after(options_.stop_timeout);
  stop_timer_.async_wait([this](const std::error_code& error) {
    if (!error) end_jobs();
  });
}

void Server::stop_accepting() {
  std::error_code ignored;
  accept_timer_.cancel();
  listening_.close(ignored);
}

void Server::apply(const ServerOptions& options, const std::string& configured_model) {
  options_ = options;
  default_model_.configure(configured_model);
}

void Server::end_jobs() {
  if (jobs_.size() > 0) log::warning("stopping: {} running jobs are cancelled", jobs_.size());
  for (const auto& connection : connections_) connection->fail_jobs(engine::stopping_error());
  finish_connections();
}

void Server::finish_connections() {
  if (std::exchange(finishing_, true)) return;
  stop_timer_.cancel();
  for (const auto& connection : connections_) connection->finish();
  check_stopped();
}

void Server::check_stopped() {
  if (!finishing_ || !connections_.empty() || std::exchange(stopped_, true)) return;
  stop_accepting();
  on_stopped_();
}

}  // namespace airllm::daemon

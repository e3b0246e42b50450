#include "daemon/server.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/socket.h>

#include <algorithm>
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
// Behind the end of a connection: those that end together are tidied up after together.
constexpr auto kTrimDelay = std::chrono::milliseconds(500);

}  // namespace

Server::Server(asio::io_context& io, engine::Engine& engine, DefaultModel default_model,
               ServerOptions options, std::function<void()> on_stopped)
    : io_(io),
      engine_(engine),
      options_(std::move(options)),
      jobs_(engine),
      default_model_(std::move(default_model)),
      context_{engine_,
               jobs_,
               default_model_,
               options_,
               std::chrono::steady_clock::now(),
               {options_.received_bytes, options_.received_per_user_bytes},
               std::make_shared<ByteBudget>(options_.sent_bytes, options_.sent_per_user_bytes)},
      on_stopped_(std::move(on_stopped)),
      listening_(io),
      accept_timer_(io),
      stop_timer_(io),
      trim_timer_(io) {}

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
  const auto peer = peer_identity(client.get());
  if (!peer) {
    log::error("{}", peer.error().message);
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
  const Status room = make_room(peer->user);
  connections_.push_back(Connection::make(io_, std::move(socket),
                                          user_of(*peer, options_.admin_group), context_,
                                          [this](Connection& gone) { closed(gone); }));
  const auto connection = connections_.back();
  connection->start();
  if (on_clients_) on_clients_();
  if (!room) connection->refuse(room.error());
}

Status Server::make_room(uid_t user) {
  std::vector<Seat> seats;
  std::vector<std::shared_ptr<Connection>> seated;
  for (const auto& connection : connections_) {
    if (connection->is_ending()) continue;
    seats.push_back({connection->user(), connection->is_greeted()});
    seated.push_back(connection);
  }
  // Those that are told their end count apart, for a few seconds: nobody can hold more than twice
  // the limit.
  if (connections_.size() - seats.size() >= options_.connections.total) close_oldest_ending();
  Admission admission = daemon::admit(seats, user, options_.connections);
  if (admission.refused) return Unexpected(*std::move(admission.refused));
  if (admission.evicted) seated[*admission.evicted]->close();
  return {};
}

void Server::close_oldest_ending() {
  const auto found = std::find_if(connections_.begin(), connections_.end(),
                                  [](const auto& connection) { return connection->is_ending(); });
  if (found != connections_.end()) (*found)->close();
}

void Server::closed(Connection& connection) {
  std::erase(connections_, connection.shared_from_this());
  if (on_clients_) on_clients_();
  trim_memory_soon();
  check_stopped();
}

// What many small frames leave behind lies scattered on the heap, which gives nothing back by
// itself.
void Server::trim_memory_soon() {
  if (std::exchange(trim_is_due_, true)) return;
  trim_timer_.expires_after(kTrimDelay);
  trim_timer_.async_wait([this](const std::error_code& error) {
    if (error) return;
    trim_is_due_ = false;
    ::malloc_trim(0);
  });
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
  context_.received.set_limits(options.received_bytes, options.received_per_user_bytes);
  context_.sent->set_limits(options.sent_bytes, options.sent_per_user_bytes);
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
  // Clients that wait for the next daemon come again and again; they would never let this one end.
  stop_accepting();
  // Told also where no job runs: a request may be on its way, which would otherwise end without a
  // word.
  for (const auto& connection : connections_) connection->refuse(engine::stopping_error());
  check_stopped();
}

void Server::check_stopped() {
  if (!finishing_ || !connections_.empty() || std::exchange(stopped_, true)) return;
  trim_timer_.cancel();
  on_stopped_();
}

}  // namespace airllm::daemon

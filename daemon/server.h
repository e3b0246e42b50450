// Accepts clients on a listening socket and stops in order.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "daemon/admission.h"
#include "daemon/connection.h"
#include "daemon/context.h"

namespace airllm::daemon {

// Runs on one io_context that one thread runs; every method belongs to that thread. The io_context
// must outlive the engine, since the engine's threads wake connections through it; close all
// connections (stop) before the engine is destroyed.
class Server {
 public:
  // `on_stopped` is called once, after stop(), when all connections are closed.
  Server(asio::io_context& io, engine::Engine& engine, DefaultModel default_model,
         ServerOptions options, std::function<void()> on_stopped);
  ~Server();

  // Accepts from `listening_fd`, which stays the caller's.
  Status start(int listening_fd);

  // New jobs are refused from now on; those that there are get the stop timeout and are then ended
  // with kUnavailable. A second call does not wait for them. When the socket stays, nothing more is
  // accepted: who connects now is the next daemon's client.
  void stop();

  // Takes over settings that have changed. Outboxes that are there keep their size.
  void apply(const ServerOptions& options, const std::string& configured_model);

  // Called when a job has come or gone.
  void on_jobs_changed(std::function<void()> callback) { jobs_.on_change(std::move(callback)); }
  size_t jobs() const { return jobs_.size(); }
  size_t connections() const { return connections_.size(); }
  // Called when a client has come or gone.
  void on_clients_changed(std::function<void()> callback) { on_clients_ = std::move(callback); }
  bool memory_given_back() const { return context_.memory_given_back; }

 private:
  void wait_for_clients();
  void accept_some();
  bool accept_one();  // false when none waits, or after trouble
  void admit(UniqueFd client);
  // Makes room for one more of `user` or says why there is none.
  Status make_room(uid_t user);
  void close_oldest_ending();
  void closed(Connection& connection);
  void trim_memory_soon();
  void stop_accepting();
  void end_jobs();
  void finish_connections();
  void check_stopped();

  asio::io_context& io_;
  engine::Engine& engine_;
  ServerOptions options_;
  JobTable jobs_;
  DefaultModel default_model_;
  Context context_;
  std::function<void()> on_stopped_;
  std::function<void()> on_clients_;
  asio::posix::stream_descriptor listening_;
  asio::steady_timer accept_timer_;
  asio::steady_timer stop_timer_;
  asio::steady_timer trim_timer_;
  std::vector<std::shared_ptr<Connection>> connections_;  // in the order of arrival
  bool trim_is_due_ = false;
  bool finishing_ = false;
  bool stopped_ = false;
};

}  // namespace airllm::daemon

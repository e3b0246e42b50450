// One client: bytes in, requests out, frames back.
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/local/stream_protocol.hpp>
#include <asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>

#include "base/descriptor_passing.h"
#include "daemon/context.h"
#include "daemon/outbox.h"
#include "daemon/requests.h"
#include "daemon/user.h"
#include "protocol/framing.h"

namespace airllm::daemon {

// Belongs to the connection thread; only the outbox is touched by others.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = asio::local::stream_protocol::socket;
  using OnClosed = std::function<void(Connection&)>;

  // `on_closed` is called once, from the connection thread, never from inside start().
  static std::shared_ptr<Connection> make(asio::io_context& io, Socket socket, const User& user,
                                          Context& context, OnClosed on_closed);

  void start();
  // Sends `error` with id 0 and the frames before it, then closes.
  void refuse(const Error& error);
  // The daemon stops: jobs end with `error`, then as finish().
  void fail_jobs(const Error& error) { requests_->fail_all(error); }
  // Sends what waits, then closes. No more requests are read.
  void finish();
  void close();
  size_t running() const { return requests_->running(); }
  uid_t user() const { return user_.uid; }
  bool is_greeted() const { return state_ != State::kNew; }
  // Whether no more requests are read.
  bool is_ending() const { return state_ == State::kFinishing || state_ == State::kClosed; }

 private:
  enum class State { kNew, kOpen, kFinishing, kClosed };

  Connection(asio::io_context& io, Socket socket, const User& user, Context& context,
             OnClosed on_closed);
  void wait_for_bytes();
  void read_bytes();
  void refuse_if_wrong(const Status& status);
  Status take_bytes(Received received, int& messages);
  Status handle_messages(int& most);
  Status count_received();
  void drop_received();
  Status handle_payload(std::string_view payload, std::vector<UniqueFd> descriptors);
  Status handle_hello(const protocol::Hello& hello);
  void pump();
  void write_some();
  void wrote(size_t bytes);
  void after_given_up();
  void watch_stuck();
  void check_stuck();
  void shut_down_sending();
  void linger_is_over();
  void leave_last_words();
  void arm(asio::steady_timer& timer, std::chrono::milliseconds delay, void (Connection::*then)());
  static void disarm(asio::steady_timer& timer);
  void hello_is_late();

  Socket socket_;
  const User user_;
  Context& context_;
  OnClosed on_closed_;
  State state_ = State::kNew;
  std::shared_ptr<Outbox> outbox_;
  std::unique_ptr<Requests> requests_;
  protocol::FrameReader frames_{protocol::kMaxHelloBytes};
  uint64_t counted_bytes_ = 0;  // of frames_, in context_.received
  DescriptorQueue descriptors_;
  uint64_t received_bytes_ = 0;
  std::array<char, 65536> buffer_;
  std::deque<Outbox::Entry> writing_;
  size_t written_of_first_ = 0;  // bytes of writing_.front()
  bool write_in_flight_ = false;
  uint64_t written_bytes_ = 0;
  uint64_t written_at_last_check_ = 0;
  bool sending_shut_ = false;
  bool watching_stuck_ = false;
  asio::steady_timer hello_timer_;
  asio::steady_timer stuck_timer_;
  asio::steady_timer linger_timer_;
};

}  // namespace airllm::daemon

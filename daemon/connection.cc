#include "daemon/connection.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/post.hpp>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/overloaded.h"
#include "base/units.h"
#include "base/version.h"

namespace airllm::daemon {
namespace {

// Reads and messages of one turn, so that peers that flood do not keep the others waiting: what
// 200 of them ask in their turns takes less than a second.
constexpr int kReadsPerTurn = 16;
constexpr int kMessagesPerTurn = 8;
// What is handed to the kernel at once.
constexpr uint64_t kWriteBytes = uint64_t{64} << 10;
// Of the socket of a peer that has not read its end; the kernel takes as much of it as it allows.
constexpr int kLastSendBuffer = 4 << 20;

Unexpected broken(std::string message) {
  return Unexpected(ErrorCode::kProtocol, std::move(message),
                    "client and daemon should be of the same version");
}

}  // namespace

std::shared_ptr<Connection> Connection::make(asio::io_context& io, Socket socket, const User& user,
                                             Context& context, OnClosed on_closed) {
  std::shared_ptr<Connection> made(
      new Connection(io, std::move(socket), user, context, std::move(on_closed)));
  // The outbox outlives the connection while a job's events hold it.
  made->outbox_ = std::make_shared<Outbox>(
      context.options.send_buffer_bytes, context.sent, user.uid,
      [weak = std::weak_ptr<Connection>(made), executor = io.get_executor()] {
        asio::post(executor, [weak] {
          if (const auto self = weak.lock()) self->pump();
        });
      });
  made->requests_ = std::make_unique<Requests>(context, made->outbox_, user);
  return made;
}

Connection::Connection(asio::io_context& io, Socket socket, const User& user, Context& context,
                       OnClosed on_closed)
    : socket_(std::move(socket)),
      user_(user),
      context_(context),
      on_closed_(std::move(on_closed)),
      hello_timer_(io),
      stuck_timer_(io),
      linger_timer_(io) {}

void Connection::arm(asio::steady_timer& timer, std::chrono::milliseconds delay,
                     void (Connection::*then)()) {
  timer.expires_after(delay);
  timer.async_wait([weak = weak_from_this(), &timer, then](const std::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->state_ == State::kClosed) return;
    // Disarmed or armed again, when this call was waiting for its turn already.
    if (timer.expiry() > asio::steady_timer::clock_type::now()) return;
    (self.get()->*then)();
  });
}

void Connection::disarm(asio::steady_timer& timer) {
  timer.expires_at(asio::steady_timer::time_point::max());
}

void Connection::start() {
  arm(hello_timer_, context_.options.hello_timeout, &Connection::hello_is_late);
  wait_for_bytes();
}

void Connection::hello_is_late() {
  // What has come and was not read yet is late by our own fault: others keep us busy.
  int unread = 0;
  if (::ioctl(socket_.native_handle(), FIONREAD, &unread) == 0 && unread > 0) {
    return arm(hello_timer_, context_.options.hello_timeout, &Connection::hello_is_late);
  }
  refuse({ErrorCode::kProtocol, "no hello came", "the peer does not speak airllm's protocol"});
}

// ---- reading -----------------------------------------------------------------------------------

void Connection::wait_for_bytes() {
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](const std::error_code& error) {
    if (self->state_ == State::kClosed) return;
    if (error) return self->close();
    self->read_bytes();
  });
}

void Connection::read_bytes() {
  int messages = kMessagesPerTurn;
  refuse_if_wrong(handle_messages(messages));  // those that the turn before has left
  for (int read = 0; read < kReadsPerTurn && messages > 0 && state_ != State::kClosed; ++read) {
    auto received = receive(socket_.native_handle(), buffer_);
    if (received && received->would_block) break;
    if (received && received->at_end) return close();
    refuse_if_wrong(received ? take_bytes(std::move(received).value(), messages)
                             : Status(Unexpected(std::move(received).error())));
  }
  if (state_ == State::kClosed) return;
  if (messages > 0) return wait_for_bytes();
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->state_ != State::kClosed) self->read_bytes();
  });
}

void Connection::refuse_if_wrong(const Status& status) {
  if (status || state_ == State::kClosed) return;
  log::warning("a client of user {} was disconnected: {}", user_.uid, status.error().message);
  refuse(status.error());
}

Status Connection::take_bytes(Received received, int& messages) {
  // What comes after the end was decided is read only so that the peer can read our last frames.
  if (state_ == State::kFinishing) return {};
  received_bytes_ += received.bytes;
  frames_.append({buffer_.data(), received.bytes});
  AIRLLM_TRY_VOID(descriptors_.add(std::move(received.descriptors), received_bytes_));
  return handle_messages(messages);
}

// As many as have come, and at most so many, which it counts down.
Status Connection::handle_messages(int& most) {
  while (most > 0 && (state_ == State::kNew || state_ == State::kOpen)) {
    AIRLLM_TRY(const std::optional<std::string> payload, frames_.next());
    if (!payload) break;
    --most;
    const uint64_t frame_end = received_bytes_ - frames_.pending_bytes();
    AIRLLM_TRY_VOID(handle_payload(*payload, descriptors_.take(frame_end)));
  }
  return count_received();
}

void Connection::drop_received() {
  frames_.drop();
  context_.received.give(user_.uid, std::exchange(counted_bytes_, 0));
}

// Half a frame waits in memory until the rest comes; many of them are a limit's affair.
Status Connection::count_received() {
  const uint64_t bytes = frames_.pending_bytes();
  ByteBudget& budget = context_.received;
  budget.give(user_.uid, std::exchange(counted_bytes_, 0));
  const ByteBudget::Taken taken = budget.take(user_.uid, bytes);
  if (taken == ByteBudget::Taken::kYes) {
    counted_bytes_ = bytes;
    return {};
  }
  const bool of_user = taken == ByteBudget::Taken::kUserIsFull;
  const char* const setting = of_user ? "max-prompts-per-user" : "max-prompts";
  return Unexpected(
      ErrorCode::kTemporary,
      "the requests of " +
          (of_user ? "user " + std::to_string(user_.uid) : std::string("all users")) +
          " that are still on their way would take more than " + setting +
          " allows: " + format_size(of_user ? budget.user_limit() : budget.total_limit()),
      std::string("send fewer at a time, or raise ") + setting + " in the daemon's settings");
}

Status Connection::handle_payload(std::string_view payload, std::vector<UniqueFd> descriptors) {
  AIRLLM_TRY(protocol::ClientMessage message, protocol::decode_client_message(payload));
  if (state_ == State::kNew && !std::holds_alternative<protocol::Hello>(message)) {
    return broken("the first message is not a hello");
  }
  return std::visit(
      Overloaded{
          [&](const protocol::Hello& hello) { return handle_hello(hello); },
          [&](protocol::Request& request) { return requests_->handle(std::move(request)); },
          [&](const protocol::Cancel& cancel) {
            requests_->cancel(cancel);
            return Status();
          },
          [&](protocol::Files& files) {
            return requests_->deliver(std::move(files), std::move(descriptors));
          },
      },
      message);
}

Status Connection::handle_hello(const protocol::Hello& hello) {
  if (state_ != State::kNew) return broken("a second hello came");
  if (hello.version != protocol::kProtocolVersion) {
    return Unexpected(ErrorCode::kProtocol,
                      "the client speaks version " + std::to_string(hello.version) +
                          " of the protocol, airllmd " + kProgramVersion + " speaks version " +
                          std::to_string(protocol::kProtocolVersion),
                      "install the same release of airllm and airllmd, and restart the daemon");
  }
  disarm(hello_timer_);
  state_ = State::kOpen;
  frames_.set_limit(protocol::kMaxFrameBytes);
  protocol::Hello ours;
  ours.program = std::string("airllmd ") + kProgramVersion;
  ours.pid = static_cast<uint64_t>(::getpid());
  AIRLLM_TRY(std::string frame, protocol::encode(protocol::ServerMessage(std::move(ours))));
  outbox_->push_final(std::move(frame), 0);
  return {};
}

// ---- writing -----------------------------------------------------------------------------------

void Connection::pump() {
  if (state_ == State::kClosed) return;
  Outbox::Work work = outbox_->take(write_in_flight_ ? 0 : kWriteBytes);
  if (work.broken) {
    log::warning("a client of user {} was disconnected: it does not read", user_.uid);
    return close();
  }
  for (const uint64_t request : work.given_up) requests_->given_up(request);
  if (!work.given_up.empty()) after_given_up();
  if (write_in_flight_) return;
  for (const Outbox::Entry& entry : work.entries) {
    // Before the client can see the frame, so that it may use the id again at once.
    if (entry.ends_request != 0) requests_->ended(entry.ends_request);
  }
  if (state_ == State::kClosed) return;
  writing_ = std::move(work.entries);
  write_some();
}

void Connection::write_some() {
  if (writing_.empty()) {
    if (state_ == State::kFinishing) shut_down_sending();
    return;
  }
  std::vector<asio::const_buffer> pieces;
  size_t skip = written_of_first_;
  for (const Outbox::Entry& entry : writing_) {
    pieces.emplace_back(entry.frame.data() + skip, entry.frame.size() - skip);
    skip = 0;
  }
  write_in_flight_ = true;
  socket_.async_write_some(pieces,
                           [self = shared_from_this()](const std::error_code& error, size_t bytes) {
                             self->write_in_flight_ = false;
                             if (self->state_ == State::kClosed) return;
                             if (error) return self->close();
                             self->wrote(bytes);
                           });
}

void Connection::wrote(size_t bytes) {
  outbox_->written(bytes);
  written_bytes_ += bytes;
  written_of_first_ += bytes;
  while (!writing_.empty() && written_of_first_ >= writing_.front().frame.size()) {
    written_of_first_ -= writing_.front().frame.size();
    writing_.pop_front();
  }
  if (writing_.empty()) {
    pump();
  } else {
    write_some();
  }
}

// ---- ends --------------------------------------------------------------------------------------

void Connection::after_given_up() {
  if (std::exchange(watching_stuck_, true)) return;
  watch_stuck();
}

void Connection::watch_stuck() {
  written_at_last_check_ = written_bytes_;
  arm(stuck_timer_, context_.options.stuck_timeout, &Connection::check_stuck);
}

void Connection::check_stuck() {
  if (outbox_->waiting_bytes() == 0) {
    watching_stuck_ = false;
  } else if (written_bytes_ == written_at_last_check_) {
    log::warning("a client of user {} was disconnected: it does not read", user_.uid);
    close();
  } else {
    watch_stuck();
  }
}

void Connection::refuse(const Error& error) {
  if (state_ == State::kFinishing || state_ == State::kClosed) return;
  outbox_->push_final(encode_event(0, protocol::Failed{error}), 0);
  finish();
}

void Connection::finish() {
  if (state_ == State::kFinishing || state_ == State::kClosed) return;
  state_ = State::kFinishing;
  disarm(hello_timer_);
  requests_->abandon();
  drop_received();
  arm(linger_timer_, context_.options.linger, &Connection::linger_is_over);
  // Not from here: the caller may be in the middle of reading.
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->pump(); });
}

void Connection::shut_down_sending() {
  if (std::exchange(sending_shut_, true)) return;
  // The peer reads to our end, then closes, which ends the reading here. Closing at once could cost
  // it our last frames.
  ::shutdown(socket_.native_handle(), SHUT_WR);
}

void Connection::linger_is_over() {
  if (!sending_shut_) leave_last_words();
  close();
}

// The peer has not read on, and its socket is full. What it must know (ends and errors) is put
// right behind what lies there: a client whose output waits for a pager learns why its answer
// ended.
void Connection::leave_last_words() {
  std::string words;
  for (const Outbox::Entry& entry : writing_) {
    const bool is_begun = &entry == &writing_.front() && written_of_first_ > 0;
    if (is_begun) words += std::string_view(entry.frame).substr(written_of_first_);
    if (!is_begun && entry.is_final) words += entry.frame;
  }
  for (const Outbox::Entry& entry : outbox_->take(~uint64_t{0}).entries) {
    if (entry.is_final) words += entry.frame;
  }
  const int socket = socket_.native_handle();
  ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kLastSendBuffer, sizeof(kLastSendBuffer));
  for (std::string_view rest = words; !rest.empty();) {
    const ssize_t size = ::send(socket, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size <= 0) return;
    rest.remove_prefix(static_cast<size_t>(size));
  }
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  disarm(hello_timer_);
  disarm(stuck_timer_);
  disarm(linger_timer_);
  requests_->abandon();
  outbox_->close();
  drop_received();
  std::error_code ignored;
  socket_.close(ignored);
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->on_closed_(*self); });
}

}  // namespace airllm::daemon

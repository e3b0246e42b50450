#include "client/session.h"

#include <chrono>
#include <optional>
#include <utility>

#include "base/overloaded.h"
#include "client/in_place.h"
#include "client/progress.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

using Clock = std::chrono::steady_clock;

// A daemon honours a cancel within one tile; a disk that hangs may take longer.
constexpr auto kCancelPatience = std::chrono::seconds(5);

// Hands one event on. True when it was the last one of the request.
Result<bool> dispatch(Connection& connection, const protocol::Event& event, EventHandler& handler) {
  using namespace protocol;  // NOLINT: the names of the events, in this function only
  bool is_last = false;
  const Status status = std::visit(
      Overloaded{
          [&](const Accepted& body) { return handler.on_accepted(body); },
          [&](const Progress& body) { return handler.on_progress(body); },
          [&](const Token& body) { return handler.on_token(body); },
          [&](const PromptLogprobs& body) { return handler.on_prompt_logprobs(body); },
          [&](const Profile& body) { return handler.on_profile(body); },
          [&](const Tokens& body) { return handler.on_tokens(body); },
          [&](const Text& body) { return handler.on_text(body); },
          [&](const OpenFiles& body) { return handler.on_open_files(connection, event.id, body); },
          [&](const Generated& body) {
            is_last = true;
            return handler.on_generated(body);
          },
          [&](const Done& body) {
            is_last = true;
            return handler.on_done(body);
          },
          [&](const Failed& body) { return Status(Unexpected(body.error)); },
      },
      event.body);
  AIRLLM_TRY_VOID(status);
  return is_last;
}

struct Outcome {
  Status status;
  bool daemon_stops = false;  // it said so, and that is the status
};

Outcome failure_of(const Error& error) {
  return {Unexpected(error), error.code == ErrorCode::kUnavailable};
}

// Runs the request `id`, which was sent, to its end.
Outcome follow(Connection& connection, uint64_t id, EventHandler& handler) {
  bool cancelling = false;
  Clock::time_point give_up{};
  for (;;) {
    int timeout_ms = -1;
    if (cancelling) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(give_up - Clock::now());
      if (left.count() <= 0) return {Unexpected(ErrorCode::kCancelled, "cancelled")};
      timeout_ms = static_cast<int>(left.count());
    }
    Result<Connection::Received> received = connection.receive(timeout_ms, !cancelling);
    if (!received) return {Unexpected(std::move(received).error())};
    if (received->wake == Connection::Wake::kSignal) {
      cancelling = true;
      give_up = Clock::now() + kCancelPatience;
      if (Status sent = connection.send(protocol::Cancel{id}); !sent) return {std::move(sent)};
    }
    if (received->wake != Connection::Wake::kMessage) continue;
    const auto* event = std::get_if<protocol::Event>(&received->message);
    if (event == nullptr) continue;
    const auto* failed = std::get_if<protocol::Failed>(&event->body);
    if (failed != nullptr && (event->id == 0 || event->id == id)) return failure_of(failed->error);
    if (event->id != id) return {unexpected_event()};
    const Result<bool> is_last = dispatch(connection, *event, handler);
    if (!is_last) return {Unexpected(is_last.error())};
    if (*is_last) return {};
  }
}

Outcome run_once(Connection& connection, const protocol::Params& params, EventHandler& handler) {
  const uint64_t id = connection.next_id();
  if (Status sent = connection.send(protocol::Request{id, params}); !sent) {
    return {std::move(sent)};
  }
  return follow(connection, id, handler);
}

class DoneHandler : public EventHandler {
 public:
  Status on_progress(const protocol::Progress& progress) override {
    line_.update(progress);
    return {};
  }
  Status on_open_files(Connection& connection, uint64_t id,
                       const protocol::OpenFiles& wanted) override {
    return pass_files_in_place(connection, id, wanted);
  }
  Status on_done(const protocol::Done& done) override {
    line_.clear();
    result_ = done.result_json;
    return {};
  }
  std::string take() { return std::move(result_); }

 private:
  ProgressLine line_;
  std::string result_;
};

}  // namespace

Status unexpected_event() {
  return Unexpected(ErrorCode::kProtocol,
                    "the daemon sent an event that does not belong to this request",
                    "install the same release of airllm and airllmd, and restart the daemon");
}

Status run_request(Connection& connection, const protocol::Params& params, EventHandler& handler) {
  for (;;) {
    Outcome outcome = run_once(connection, params, handler);
    if (!outcome.daemon_stops || handler.has_begun()) return std::move(outcome.status);
    AIRLLM_TRY_VOID(connection.reopen(outcome.status.error()));
  }
}

Status run_each(const std::vector<std::string>& items, std::string_view done,
                const std::function<Status(const std::string&)>& run) {
  std::optional<Error> first;
  std::string succeeded;
  for (const std::string& item : items) {
    Status status = run(item);
    if (status) {
      succeeded += (succeeded.empty() ? "" : ", ") + item;
      continue;
    }
    if (first) {
      first->message += "; " + status.error().message;
    } else {
      first = std::move(status).error();
    }
    const bool goes_on = first->code != ErrorCode::kUnavailable &&
                         first->code != ErrorCode::kCancelled &&
                         first->code != ErrorCode::kProtocol;
    if (!goes_on) break;
  }
  if (!first) return {};
  if (!succeeded.empty()) first->message += "; " + std::string(done) + ": " + succeeded;
  return Unexpected(std::move(*first));
}

Result<std::string> simple_request(Connection& connection, const protocol::Params& params) {
  DoneHandler handler;
  AIRLLM_TRY_VOID(run_request(connection, params, handler));
  return handler.take();
}

}  // namespace airllm::client

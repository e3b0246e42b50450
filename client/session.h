// Runs one request on a connection, from sending it to its last event.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "client/connection.h"
#include "protocol/messages.h"

namespace airllm::client {

// An event that does not belong to the request: kProtocol.
Status unexpected_event();

// What a request reports. An error that a function returns ends the request: it is cancelled.
class EventHandler {
 public:
  virtual ~EventHandler() = default;
  // Whether some of the answer was seen, so that the request must not be sent again.
  virtual bool has_begun() const { return false; }
  virtual Status on_accepted(const protocol::Accepted&) { return {}; }
  virtual Status on_progress(const protocol::Progress&) { return {}; }
  virtual Status on_prompt_logprobs(const protocol::PromptLogprobs&) { return unexpected_event(); }
  virtual Status on_token(const protocol::Token&) { return unexpected_event(); }
  virtual Status on_profile(const protocol::Profile&) { return unexpected_event(); }
  virtual Status on_tokens(const protocol::Tokens&) { return unexpected_event(); }
  virtual Status on_text(const protocol::Text&) { return unexpected_event(); }
  virtual Status on_open_files(Connection&, uint64_t /*id*/, const protocol::OpenFiles&) {
    return unexpected_event();
  }
  // The end: one of the two.
  virtual Status on_generated(const protocol::Generated&) { return unexpected_event(); }
  virtual Status on_done(const protocol::Done&) { return unexpected_event(); }
};

// Sends the request and hands its events to `handler`. A failure that the daemon reports is the
// result. The first signal sends a cancel and waits a little for the end; when none comes, the
// result is kCancelled.
// A daemon that says that it is stopping before the answer has begun is waited for, and asked
// again.
Status run_request(Connection& connection, const protocol::Params& params, EventHandler& handler);

// Calls `run` for each of `items`, also behind one that failed, unless the connection is gone. The
// error is the first one; its message also has the other failures, and behind `done` ("removed")
// the items that succeeded.
Status run_each(const std::vector<std::string>& items, std::string_view done,
                const std::function<Status(const std::string&)>& run);

// For requests that end with Done: connects, runs, and gives the JSON text of the result.
// Progress is shown on a terminal.
Result<std::string> simple_request(Connection& connection, const protocol::Params& params);

}  // namespace airllm::client

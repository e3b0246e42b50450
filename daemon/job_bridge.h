// From the engine's events to frames in a connection's outbox.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/outbox.h"
#include "engine/engine.h"
#include "protocol/messages.h"

namespace airllm::daemon {

// Thread-safe: events come from the engine's threads, the rest from the connection's.
class JobBridge : public engine::JobEvents {
 public:
  // `tells_acceptance`: the engine reports it (generate). Otherwise events wait until accept().
  JobBridge(uint64_t request, std::shared_ptr<Outbox> outbox, bool tells_acceptance)
      : request_(request), outbox_(std::move(outbox)), open_(tells_acceptance) {}

  // Tells the client that the job is accepted, then what has happened since.
  void accept(engine::JobId job, const std::string& model);
  // Ends the request with an error of the daemon's; what the job still reports is dropped.
  void fail(const Error& error);
  // The peer is gone: everything is dropped.
  void drop();
  // Why the request ended otherwise than as it was meant to; nothing when it did not. A cancelled
  // job has kCancelled.
  std::optional<ErrorCode> failure() const;
  // Asks the peer for files. False when the request has ended.
  bool ask_files(const protocol::OpenFiles& files);

  void on_accepted(const engine::GenerateAccepted& accepted) override;
  void on_progress(const engine::Progress& progress) override;
  void on_prompt_logprobs(uint64_t position,
                          std::span<const engine::TokenLogprob> logprobs) override;
  void on_token(const engine::GeneratedToken& token) override;
  void on_profile(std::span<const engine::ProfileEvent> events, uint64_t lost) override;
  void on_tokens(std::span<const int32_t> ids, std::span<const std::string> pieces) override;
  void on_text(std::string_view text) override;
  void on_generated(const engine::GenerateResult& result) override;
  void on_done(const Json& result) override;
  void on_error(const Error& error) override;
  uint64_t room_bytes() const override { return outbox_->room_bytes(); }

 private:
  using Clock = std::chrono::steady_clock;

  bool send(protocol::EventBody body, bool is_final,
            std::optional<ErrorCode> failure = std::nullopt);
  // The three below are called with the mutex held.
  void queue(std::string frame, bool is_final);
  void push(std::string frame, bool is_final);
  void give_up();
  bool progress_is_due(const engine::Progress& progress);

  const uint64_t request_;
  const std::shared_ptr<Outbox> outbox_;

  mutable std::mutex mutex_;
  std::optional<ErrorCode> failure_;
  bool open_;           // whether events pass, or wait for accept()
  bool ended_ = false;  // nothing more is sent
  std::vector<std::pair<std::string, bool>> waiting_;
  std::string last_stage_;
  Clock::time_point last_progress_{};
};

// An event as a frame. One that cannot be a frame (longer than one may be) becomes an error event.
std::string encode_event(uint64_t request, protocol::EventBody body);

}  // namespace airllm::daemon

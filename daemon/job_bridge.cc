#include "daemon/job_bridge.h"

#include "base/json.h"
#include "protocol/framing.h"

namespace airllm::daemon {
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(100);
// Progress is for eyes: a peer that is this far behind gets none.
constexpr uint64_t kProgressWaitingBytes = uint64_t{256} << 10;

std::vector<protocol::TokenLogprob> to_protocol(std::span<const engine::TokenLogprob> logprobs) {
  std::vector<protocol::TokenLogprob> out;
  out.reserve(logprobs.size());
  for (const engine::TokenLogprob& pair : logprobs) out.push_back({pair.id, pair.logprob});
  return out;
}

protocol::SamplingOptions to_protocol(const engine::SamplingOptions& options) {
  return {options.temperature,        options.top_k, options.top_p, options.min_p,
          options.repetition_penalty, options.seed};
}

const char* finish_word(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop: return "stop";
    case engine::FinishReason::kStopString: return "stop_string";
    case engine::FinishReason::kLength: return "length";
    case engine::FinishReason::kContext: return "context";
    case engine::FinishReason::kCancelled: return "cancelled";
  }
  return "stop";
}

const char* kind_word(engine::ProfileEvent::Kind kind) {
  switch (kind) {
    case engine::ProfileEvent::Kind::kSweep: return "sweep";
    case engine::ProfileEvent::Kind::kStage: return "stage";
    case engine::ProfileEvent::Kind::kWait: return "wait";
    case engine::ProfileEvent::Kind::kRead: return "read";
    case engine::ProfileEvent::Kind::kCopy: return "copy";
    case engine::ProfileEvent::Kind::kSample: return "sample";
  }
  return "";
}

}  // namespace

std::string encode_event(uint64_t request, protocol::EventBody body) {
  auto frame = protocol::encode(protocol::Event{request, std::move(body)});
  if (frame) return std::move(frame).value();
  Error error = std::move(frame).error();
  error.code = ErrorCode::kInternal;
  error.message = "an answer does not fit a frame: " + error.message;
  error.remedy = "ask for fewer logprobs";
  auto report = protocol::encode(protocol::Event{request, protocol::Failed{std::move(error)}});
  AIRLLM_CHECK(report.has_value());
  return std::move(report).value();
}

void JobBridge::accept(engine::JobId job, const std::string& model) {
  protocol::Accepted accepted;
  accepted.job = job;
  accepted.model = model;
  std::string frame = encode_event(request_, std::move(accepted));
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  open_ = true;
  push(std::move(frame), false);
  for (auto& [text, is_final] : std::exchange(waiting_, {})) {
    if (!ended_) push(std::move(text), is_final);
  }
}

void JobBridge::fail(const Error& error) {
  std::string frame = encode_event(request_, protocol::Failed{error});
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  failure_ = error.code;
  push(std::move(frame), true);
}

void JobBridge::drop() {
  const std::lock_guard lock(mutex_);
  if (!ended_) failure_ = ErrorCode::kCancelled;
  ended_ = true;
  waiting_.clear();
}

std::optional<ErrorCode> JobBridge::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

bool JobBridge::ask_files(const protocol::OpenFiles& files) { return send(files, false); }

bool JobBridge::send(protocol::EventBody body, bool is_final, std::optional<ErrorCode> failure) {
  std::string frame = encode_event(request_, std::move(body));
  const std::lock_guard lock(mutex_);
  if (ended_) return false;
  failure_ = failure;
  queue(std::move(frame), is_final);
  return true;
}

void JobBridge::queue(std::string frame, bool is_final) {
  if (open_) {
    push(std::move(frame), is_final);
  } else {
    waiting_.emplace_back(std::move(frame), is_final);
  }
}

void JobBridge::push(std::string frame, bool is_final) {
  if (is_final) {
    ended_ = true;
    outbox_->push_final(std::move(frame), request_);
  } else if (outbox_->push(std::move(frame)) == Outbox::Pushed::kFull) {
    give_up();
  }
}

void JobBridge::give_up() {
  Error error{ErrorCode::kTemporary,
              "the answer was cancelled: the client does not read, and " +
                  std::to_string(outbox_->waiting_bytes()) + " bytes wait for it",
              "read faster, ask for fewer logprobs, or give the daemon a larger --send-buffer"};
  ended_ = true;
  failure_ = error.code;
  outbox_->push_final(encode_event(request_, protocol::Failed{std::move(error)}), request_);
  outbox_->report_full(request_);
}

void JobBridge::on_accepted(const engine::GenerateAccepted& accepted) {
  send(protocol::Accepted{accepted.job, accepted.model, accepted.prompt_tokens, accepted.seed,
                          to_protocol(accepted.options), accepted.max_tokens},
       false);
}

bool JobBridge::progress_is_due(const engine::Progress& progress) {
  const Clock::time_point now = Clock::now();
  if (progress.stage == last_stage_ && now - last_progress_ < kProgressInterval) return false;
  if (outbox_->waiting_bytes() > kProgressWaitingBytes) return false;
  last_stage_ = progress.stage;
  last_progress_ = now;
  return true;
}

void JobBridge::on_progress(const engine::Progress& progress) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_ || !progress_is_due(progress)) return;
  }
  send(protocol::Progress{progress.stage, progress.done, progress.total, progress.unit}, false);
}

void JobBridge::on_prompt_logprobs(uint64_t position,
                                   std::span<const engine::TokenLogprob> logprobs) {
  send(protocol::PromptLogprobs{position, to_protocol(logprobs)}, false);
}

void JobBridge::on_token(const engine::GeneratedToken& token) {
  send(protocol::Token{token.id, token.text, to_protocol(token.logprobs)}, false);
}

void JobBridge::on_profile(std::span<const engine::ProfileEvent> events, uint64_t lost) {
  protocol::Profile profile{{}, lost};
  profile.events.reserve(events.size());
  for (const engine::ProfileEvent& event : events) {
    profile.events.push_back({kind_word(event.kind), event.thread, event.begin_ns,
                              event.duration_ns, event.name, event.offset_bytes, event.read_bytes,
                              event.cache_bytes, event.rows, event.other_rows});
  }
  send(std::move(profile), false);
}

void JobBridge::on_tokens(std::span<const int32_t> ids, std::span<const std::string> pieces) {
  send(protocol::Tokens{{ids.begin(), ids.end()}, {pieces.begin(), pieces.end()}}, false);
}

void JobBridge::on_text(std::string_view text) { send(protocol::Text{std::string(text)}, false); }

void JobBridge::on_generated(const engine::GenerateResult& result) {
  send(protocol::Generated{finish_word(result.finish_reason), result.prompt_tokens,
                           result.completion_tokens, result.queued_ms, result.first_token_ms,
                           result.total_ms, result.sweeps, result.read_bytes, result.cache_bytes},
       true,
       result.finish_reason == engine::FinishReason::kCancelled
           ? std::optional(ErrorCode::kCancelled)
           : std::nullopt);
}

void JobBridge::on_done(const Json& result) { send(protocol::Done{dump_json(result)}, true); }

void JobBridge::on_error(const Error& error) {
  const bool is_behind = outbox_->room_bytes() == 0;
  send(protocol::Failed{error}, true, error.code);
  // What made the job fail may be that nobody reads.
  if (is_behind) outbox_->report_full(request_);
}

}  // namespace airllm::daemon

#include "engine/schedule/generate_job.h"

#include <algorithm>
#include <random>
#include <utility>

namespace airllm::schedule {
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(100);

// What a row's log-probabilities take on their way, at most: a pair of an id and a number, and what
// is around them.
constexpr uint64_t kPairBytes = 15;
constexpr uint64_t kRowBytes = 128;

// Fits a double, so that every JSON reader keeps it exactly.
uint64_t random_seed() {
  std::random_device device;
  return ((uint64_t{device()} << 32) | device()) >> 11;
}

// The request's options over the model's own over the defaults; every field set.
engine::SamplingOptions effective_options(const engine::SamplingOptions& asked,
                                          const sampling::GenerationConfig& recommended) {
  engine::SamplingOptions used;
  const auto choose = [](const auto& first, const auto& second, auto fallback) {
    return first ? *first : second.value_or(fallback);
  };
  used.temperature = choose(asked.temperature, recommended.temperature, 0.0);
  used.top_k = choose(asked.top_k, recommended.top_k, int64_t{0});
  used.top_p = choose(asked.top_p, recommended.top_p, 1.0);
  used.min_p = choose(asked.min_p, recommended.min_p, 0.0);
  used.repetition_penalty = choose(asked.repetition_penalty, recommended.repetition_penalty, 1.0);
  used.seed = asked.seed ? *asked.seed : random_seed();
  return used;
}

sampling::SamplerSettings sampler_settings(const engine::SamplingOptions& options) {
  sampling::SamplerSettings settings;
  settings.temperature = *options.temperature;
  settings.top_k = *options.top_k;
  settings.top_p = *options.top_p;
  settings.min_p = *options.min_p;
  settings.repetition_penalty = *options.repetition_penalty;
  settings.seed = *options.seed;
  return settings;
}

std::vector<engine::TokenLogprob> top(std::span<const float> logits, size_t count) {
  std::vector<engine::TokenLogprob> out;
  if (count == 0) return out;
  for (const auto& [id, logprob] : sampling::top_logprobs(logits, count)) {
    out.push_back({id, logprob});
  }
  return out;
}

}  // namespace

GenerateJob::GenerateJob(std::shared_ptr<JobRecord> record,
                         std::shared_ptr<const LoadedModel> model,
                         const engine::GenerateRequest& request, std::vector<int32_t> prompt,
                         std::shared_ptr<engine::JobEvents> events)
    : user_(request.user),
      record_(std::move(record)),
      model_(std::move(model)),
      events_(std::move(events)),
      ignore_eos_(request.ignore_eos),
      logprobs_(std::min(request.logprobs, model_->architecture().vocabulary)),
      prompt_logprobs_(std::min(request.prompt_logprobs, model_->architecture().vocabulary)),
      wants_profile_(request.profile),
      max_tokens_(request.max_tokens),
      keep_alive_(request.keep_alive),
      tokens_(std::move(prompt)),
      prompt_count_(tokens_.size()),
      sampler_([&] {
        accepted_.options = effective_options(request.sampling, model_->generation);
        return sampler_settings(accepted_.options);
      }()),
      text_(model_->tokenizer ? model_->tokenizer->stream(true) : nullptr),
      stop_(request.stop) {
  accepted_.job = record_->id();
  accepted_.model = model_->name();
  accepted_.prompt_tokens = prompt_count_;
  accepted_.seed = *accepted_.options.seed;
  accepted_.max_tokens = max_tokens_;
  result_.prompt_tokens = prompt_count_;
}

void GenerateJob::accept() {
  accepted_at_ = Clock::now();
  last_progress_ = accepted_at_;
  if (wants_profile_) {
    observer_ =
        std::make_shared<JobProfile>(*events_, model::stages(model_->architecture()), accepted_at_);
  }
  record_->update([&](engine::JobInfo& info) { info.prompt_tokens = prompt_count_; });
  events_->on_accepted(accepted_);
}

void GenerateJob::follow_length() {
  if (!model::are_rotated_alike(model_->architecture(), computed_length_, tokens_.size())) {
    computed_ = 0;
  }
  computed_length_ = tokens_.size();
}

bool GenerateJob::wants_logits(size_t index) const {
  if (index + 1 == tokens_.size()) return true;
  return prompt_logprobs_ > 0 && index < prompt_count_ && index >= prompt_positions_told_;
}

size_t GenerateJob::logit_rows_taken(Clock::time_point now) {
  const uint64_t room = events_->room_bytes();
  if (room == 0) {
    if (!paused_since_) paused_since_ = now;
    return 0;
  }
  paused_since_.reset();
  if (room == engine::JobEvents::kUnlimitedRoom) return tokens_.size();
  const uint64_t row_bytes = kRowBytes + kPairBytes * std::max(prompt_logprobs_, logprobs_);
  return static_cast<size_t>(std::max<uint64_t>(room / row_bytes, 1));
}

void GenerateJob::preempt() {
  sequence_.reset();
  computed_ = 0;
  record_->update([](engine::JobInfo& info) { info.state = "queued"; });
}

void GenerateJob::sweep_started(Clock::time_point now) {
  if (!started_at_) {
    started_at_ = now;
    result_.queued_ms = milliseconds_between(accepted_at_, now);
  }
  record_->update([&](engine::JobInfo& info) {
    info.state = is_prefilling() ? "prefill" : "decode";
    info.done = is_prefilling() ? computed_ : result_.completion_tokens;
    info.total = is_prefilling() ? prompt_count_ : max_tokens_.value_or(0);
    info.unit = "tokens";
  });
}

void GenerateJob::take_logits(size_t index, std::span<const float> logits) {
  if (finished_) return;
  if (prompt_logprobs_ > 0 && index < prompt_count_ && index >= prompt_positions_told_) {
    emit_prompt_logprobs(index, logits);
  }
  if (index + 1 != tokens_.size()) return;
  if (max_tokens_ == 0U) return finish(engine::FinishReason::kLength);
  if (is_context_full()) return finish(engine::FinishReason::kContext);

  const int32_t id = sample(logits);
  tokens_.push_back(id);
  if (++result_.completion_tokens == 1) {
    result_.first_token_ms = milliseconds_between(accepted_at_, Clock::now());
  }
  record_->update(
      [&](engine::JobInfo& info) { info.completion_tokens = result_.completion_tokens; });
  emit_token(id, logits);
}

int32_t GenerateJob::sample(std::span<const float> logits) {
  if (observer_ == nullptr) return sampler_.sample(logits, tokens_);
  const Clock::time_point begin = Clock::now();
  const int32_t id = sampler_.sample(logits, tokens_);
  observer_->add_sample(begin);
  return id;
}

void GenerateJob::emit_prompt_logprobs(size_t index, std::span<const float> logits) {
  prompt_positions_told_ = index + 1;
  const std::vector<engine::TokenLogprob> logprobs = top(logits, prompt_logprobs_);
  events_->on_prompt_logprobs(index, logprobs);
}

void GenerateJob::emit_token(int32_t id, std::span<const float> logits) {
  const bool is_end = !ignore_eos_ && model_->is_end_token(id);
  engine::GeneratedToken token;
  token.id = id;
  token.logprobs = top(logits, logprobs_);
  if (!is_end && text_ != nullptr) token.text = stop_.push(text_->push(id));
  events_->on_token(token);
  if (is_end) return finish(engine::FinishReason::kStop);
  if (stop_.matched()) return finish(engine::FinishReason::kStopString);
  if (max_tokens_ && result_.completion_tokens >= *max_tokens_) {
    return finish(engine::FinishReason::kLength);
  }
  if (is_context_full()) finish(engine::FinishReason::kContext);
}

void GenerateJob::count_sweep(const stream::IoCounters& io) {
  ++result_.sweeps;
  result_.read_bytes += io.read_bytes;
  result_.cache_bytes += io.cache_bytes;
}

void GenerateJob::report_progress(uint64_t done_bytes, uint64_t total_bytes) {
  if (finished_ || result_.completion_tokens > 0) return;
  const Clock::time_point now = Clock::now();
  if (now - last_progress_ < kProgressInterval) return;
  last_progress_ = now;
  events_->on_progress({"prefill", done_bytes, total_bytes, "bytes"});
}

void GenerateJob::finish(engine::FinishReason reason) {
  AIRLLM_CHECK(!finished_);
  if (reason != engine::FinishReason::kStopString && text_ != nullptr) {
    engine::GeneratedToken rest;
    rest.text = stop_.push(text_->finish());
    if (stop_.matched()) {
      reason = engine::FinishReason::kStopString;
    } else {
      rest.text += stop_.finish();
    }
    if (!rest.text.empty()) events_->on_token(rest);
  }
  result_.finish_reason = reason;
  const Clock::time_point now = Clock::now();
  result_.total_ms = milliseconds_between(accepted_at_, now);
  if (!started_at_) result_.queued_ms = result_.total_ms;
  if (observer_ != nullptr) observer_->end();
  events_->on_generated(result_);
  release();
}

void GenerateJob::fail(const Error& error) {
  AIRLLM_CHECK(!finished_);
  if (observer_ != nullptr) observer_->end();
  events_->on_error(error);
  release();
}

void GenerateJob::end_without_room(const char* setting) {
  if (!is_prefilling()) return finish(engine::FinishReason::kContext);
  fail({ErrorCode::kConfig,
        "keys and values of the prompt's " + std::to_string(prompt_count_) + " tokens do not fit " +
            setting,
        std::string("give the daemon a larger --") + setting + ", or shorten the prompt"});
}

// The KV stays until the sweep that uses it is over; see Scheduler.
void GenerateJob::release() {
  finished_ = true;
  observer_.reset();
  events_.reset();
}

}  // namespace airllm::schedule

// One generate job on its way through the sweeps: its tokens, its KV, its sampler, its text.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/kv/kv_pool.h"
#include "engine/sampling/sampler.h"
#include "engine/schedule/job.h"
#include "engine/schedule/job_profile.h"
#include "engine/schedule/loaded_model.h"
#include "engine/schedule/stop_matcher.h"
#include "engine/stream/weight_stream.h"

namespace airllm::schedule {

// Made by the preparing thread, then used by the engine thread alone.
class GenerateJob {
 public:
  GenerateJob(std::shared_ptr<JobRecord> record, std::shared_ptr<const LoadedModel> model,
              const engine::GenerateRequest& request, std::vector<int32_t> prompt,
              std::shared_ptr<engine::JobEvents> events);

  // Instead of a profile. Before accept().
  void observe_by(std::shared_ptr<SweepObserver> observer) { observer_ = std::move(observer); }
  // Tells the client that the job is accepted; its timings count from here.
  void accept();

  uid_t user() const { return user_; }
  JobRecord& record() { return *record_; }
  const std::shared_ptr<const LoadedModel>& model() const { return model_; }
  bool is_finished() const { return finished_; }
  // How long its model is to keep its memory when the job has ended, if the request says so.
  std::optional<std::chrono::milliseconds> keep_alive() const { return keep_alive_; }

  // ---- what a sweep needs ----
  const std::vector<int32_t>& tokens() const { return tokens_; }  // prompt and answer
  size_t computed() const { return computed_; }                   // positions whose KV is there
  size_t pending() const { return tokens_.size() - computed_; }
  bool is_prefilling() const { return computed_ < prompt_count_; }
  // Forgets what was computed if the sequence has grown so that its positions rotate otherwise.
  void follow_length();
  // Whether position `index` needs logits: the last token always, a prompt's token when its
  // distribution was asked for and has not been told yet.
  bool wants_logits(size_t index) const;
  // How many rows with logits the receiver takes now; 0: the job pauses.
  size_t logit_rows_taken(Clock::time_point now);
  // Since when the receiver takes nothing.
  std::optional<Clock::time_point> paused_since() const { return paused_since_; }
  kv::KvSequence& sequence() { return *sequence_; }
  bool has_sequence() const { return sequence_ != nullptr; }
  void attach(kv::KvPool& pool) { sequence_ = std::make_unique<kv::KvSequence>(pool); }
  // Gives the KV up; the tokens so far are computed again later.
  void preempt();

  // Whether who observes it wants it in the next sweep.
  bool rides_next() const { return rides_next_; }
  void set_rides_next(bool rides) { rides_next_ = rides; }
  // The number of the last sweep that carried it; 0: none yet.
  uint64_t last_sweep() const { return last_sweep_; }
  void ride(uint64_t sweep) { last_sweep_ = sweep; }

  // ---- what a sweep gives ----
  void sweep_started(Clock::time_point now);
  // The logits of position `index`; may end the job.
  void take_logits(size_t index, std::span<const float> logits);
  void advance(size_t rows) { computed_ += rows; }
  void count_sweep(const stream::IoCounters& io);
  // Who is told of its sweeps: the profile that it asked for, or who observes it; null: nobody.
  SweepObserver* observer() { return observer_.get(); }
  // Bytes of weights that the prompt's sweeps have used and will use; told at most ten times a
  // second.
  void report_progress(uint64_t done_bytes, uint64_t total_bytes);

  // ---- its end ----
  void finish(engine::FinishReason reason);
  void fail(const Error& error);
  // Ends the job because KV memory for its next token is nowhere to be had: as context full, or,
  // when not even the prompt fits, as an error that names `setting`, which limits it.
  void end_without_room(const char* setting);
  bool is_context_full() const { return tokens_.size() >= model_->architecture().context; }

 private:
  int32_t sample(std::span<const float> logits);
  void emit_token(int32_t id, std::span<const float> logits);
  void emit_prompt_logprobs(size_t index, std::span<const float> logits);
  void release();

  uid_t user_;
  std::shared_ptr<JobRecord> record_;
  std::shared_ptr<const LoadedModel> model_;
  std::shared_ptr<engine::JobEvents> events_;

  engine::GenerateAccepted accepted_;
  bool ignore_eos_;
  size_t logprobs_;
  size_t prompt_logprobs_;
  bool wants_profile_;
  std::optional<uint64_t> max_tokens_;
  std::optional<std::chrono::milliseconds> keep_alive_;

  std::vector<int32_t> tokens_;
  size_t prompt_count_;
  size_t computed_ = 0;
  size_t computed_length_ = 0;  // of the sequence when that was computed
  uint64_t last_sweep_ = 0;
  bool rides_next_ = true;
  size_t prompt_positions_told_ = 0;
  std::unique_ptr<kv::KvSequence> sequence_;
  sampling::Sampler sampler_;
  std::unique_ptr<tokenizer::Tokenizer::Stream> text_;  // null without a tokenizer
  StopMatcher stop_;
  std::shared_ptr<SweepObserver> observer_;

  engine::GenerateResult result_;
  Clock::time_point accepted_at_;
  std::optional<Clock::time_point> started_at_;
  Clock::time_point last_progress_;
  std::optional<Clock::time_point> paused_since_;
  bool finished_ = false;
};

}  // namespace airllm::schedule

#include "engine/stream/recorder.h"

#include <utility>

namespace airllm::stream {

void Recorder::add(const std::optional<Mark>& mark, Span span) {
  if (!mark) return;
  span.begin = mark->time;
  const std::lock_guard lock(mutex_);
  const uint64_t sweep = sweep_.load(std::memory_order_relaxed);
  if (sweep == 0) return;
  // One of an earlier sweep, which was given up, may tell of rows that are in no profile.
  if (span.tells_rows && sweep != mark->sweep) return;
  if (taken_.spans.size() >= kMostSpans) {
    ++taken_.lost;
    return;
  }
  span.end = Clock::now();  // with the lock held, so that spans lie in the order of their ends
  if (span.tells_rows && hides_rows_) {
    span.index = Span::kUntold;
    span.offset_bytes = 0;
  }
  taken_.spans.push_back(span);
}

Recorder::Taken Recorder::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(taken_, {});
}

void Recorder::begin_sweep(bool hides_rows) {
  {
    const std::lock_guard lock(mutex_);
    hides_rows_ = hides_rows;
    sweep_ = ++sweeps_;
  }
  stage_ = 0;
  io_at_stage_ = {};
  stage_mark_ = mark();
}

void Recorder::enter_stage(uint32_t stage, const IoCounters& io) {
  if (!stage_mark_ || stage == stage_) return;
  end_sweep(io);
  stage_ = stage;
  io_at_stage_ = io;
  stage_mark_ = mark();
}

std::optional<Span> Recorder::stage_so_far(const IoCounters& io) const {
  if (!stage_mark_) return std::nullopt;
  Span span;
  span.kind = Span::Kind::kStage;
  span.index = stage_;
  span.begin = stage_mark_->time;
  span.end = Clock::now();
  span.read_bytes = io.read_bytes - io_at_stage_.read_bytes;
  span.cache_bytes = io.cache_bytes - io_at_stage_.cache_bytes;
  return span;
}

void Recorder::end_sweep(const IoCounters& io) {
  if (const std::optional<Span> stage = stage_so_far(io)) add(stage_mark_, *stage);
  stage_mark_.reset();
}

void Recorder::turn_off() {
  const std::lock_guard lock(mutex_);
  sweep_ = 0;
  stage_mark_.reset();
  taken_ = {};
}

}  // namespace airllm::stream

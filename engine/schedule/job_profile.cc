#include "engine/schedule/job_profile.h"

#include <utility>

namespace airllm::schedule {
namespace {

using engine::ProfileEvent;

// Events that are sent at once.
constexpr size_t kBatchEvents = 256;
// What one takes on its way, at most: names of fields, numbers, a short name.
constexpr uint64_t kEventBytes = 192;

std::string name_of(const model::StageSpec& stage) {
  switch (stage.kind) {
    case model::StageSpec::Kind::kEmbedding: return "embedding";
    case model::StageSpec::Kind::kLayer: return "layer " + std::to_string(stage.layer);
    case model::StageSpec::Kind::kHead: return "head";
  }
  return "stage";
}

int64_t nanoseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

}  // namespace

JobProfile::JobProfile(engine::JobEvents& events, const std::vector<model::StageSpec>& stages,
                       Clock::time_point accepted_at)
    : events_(events), accepted_at_(accepted_at) {
  for (const model::StageSpec& stage : stages) {
    stages_.push_back(name_of(stage));
    shards_.push_back(stage.shard_name);
  }
}

void JobProfile::add(const stream::Recorder::Taken& taken) {
  for (const stream::Span& span : taken.spans) add(span);
  lost_ += taken.lost;
}

void JobProfile::add(const stream::Span& span) {
  ProfileEvent event = at(span.begin, span.end);
  event.thread = span.reader;
  event.read_bytes = span.read_bytes;
  event.cache_bytes = span.cache_bytes;
  switch (span.kind) {
    case stream::Span::Kind::kWait: event.kind = ProfileEvent::Kind::kWait; break;
    case stream::Span::Kind::kStage:
      event.kind = ProfileEvent::Kind::kStage;
      event.name = stages_.at(span.index);
      break;
    case stream::Span::Kind::kRead:
      event.kind = ProfileEvent::Kind::kRead;
      event.offset_bytes = span.offset_bytes;
      if (span.index != stream::Span::kUntold) event.name = shards_.at(span.index);
      break;
    case stream::Span::Kind::kCopy:
      event.kind = ProfileEvent::Kind::kCopy;
      if (span.index != stream::Span::kUntold) event.name = shards_.at(span.index);
      break;
  }
  add(std::move(event));
}

void JobProfile::begin_sweep(Clock::time_point now, SweepRows rows) {
  sweep_began_ = now;
  sweep_rows_ = rows;
}

void JobProfile::end_sweep(const stream::IoCounters& io) {
  ProfileEvent event = at(sweep_began_, Clock::now());
  event.kind = ProfileEvent::Kind::kSweep;
  event.read_bytes = io.read_bytes;
  event.cache_bytes = io.cache_bytes;
  event.rows = sweep_rows_.own;
  event.other_rows = sweep_rows_.others;
  add(std::move(event));
  send();
}

void JobProfile::add_sample(Clock::time_point begin) {
  ProfileEvent event = at(begin, Clock::now());
  event.kind = ProfileEvent::Kind::kSample;
  add(std::move(event));
}

ProfileEvent JobProfile::at(Clock::time_point begin, Clock::time_point end) const {
  ProfileEvent event;
  event.begin_ns = nanoseconds(begin - accepted_at_);
  event.duration_ns = static_cast<uint64_t>(nanoseconds(end - begin));
  return event;
}

void JobProfile::add(ProfileEvent event) {
  batch_.push_back(std::move(event));
  if (batch_.size() == kBatchEvents) send();
}

void JobProfile::send() {
  if (batch_.empty()) return;
  const bool has_room =
      told_ + batch_.size() <= kMostEvents && events_.room_bytes() >= batch_.size() * kEventBytes;
  if (has_room) {
    told_ += batch_.size();
    lost_told_ = lost_;
    events_.on_profile(batch_, lost_);
  } else {
    lost_ += batch_.size();
  }
  batch_.clear();
}

void JobProfile::end() {
  send();
  if (lost_ > lost_told_) events_.on_profile({}, lost_);
}

}  // namespace airllm::schedule

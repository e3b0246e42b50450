#include "engine/schedule/bench_sweeps.h"

#include <algorithm>
#include <utility>

#include "base/units.h"
#include "engine/stream/ceiling_reader.h"
#include "kernels/memory_sum.h"

namespace airllm::schedule {
namespace {

// How long what was read ahead may take to come in: for ever, where other jobs go on.
constexpr auto kSettling = std::chrono::seconds(1);
// Of resident memory, so much is summed for a ceiling, or as much for so long; in pieces, between
// which the engine thread says that it is alive.
constexpr uint64_t kMostSummedBytes = kGiB;
constexpr double kLeastSummingSeconds = 0.005;
constexpr size_t kPieceBytes = 64 * kMiB;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

int64_t nanoseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

// Sums the memory and returns how many bytes that were; the sums themselves tell nothing.
uint64_t sum_once(std::span<const std::span<const std::byte>> memory,
                  const BetweenSweeps& between) {
  uint64_t bytes = 0;
  for (std::span<const std::byte> part : memory) {
    while (!part.empty() && bytes < kMostSummedBytes) {
      const size_t piece = std::min(part.size(), kPieceBytes);
      static_cast<void>(kernels::sum_memory(part.first(piece), between.pool));
      between.alive();
      part = part.subspan(piece);
      bytes += piece;
    }
  }
  return bytes;
}

struct SumRate {
  uint64_t bytes = 0;  // summed over and over
  std::optional<double> bytes_per_second;
};

SumRate sum_resident(const BetweenSweeps& between) {
  const std::vector<std::span<const std::byte>> memory = between.model.weights().resident_memory();
  if (memory.empty()) return {};
  SumRate rate;
  uint64_t summed = 0;
  double seconds = 0;
  const Clock::time_point start = Clock::now();
  while (seconds < kLeastSummingSeconds) {
    rate.bytes = sum_once(memory, between);
    summed += rate.bytes;
    seconds = seconds_between(start, Clock::now());
  }
  rate.bytes_per_second = static_cast<double>(summed) / seconds;
  return rate;
}

}  // namespace

// ---- the bench's own thread --------------------------------------------------------------------

std::optional<BenchRound> BenchSweeps::wait_for_round() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return state_ == State::kHeld || state_ == State::kOver; });
  return state_ == State::kHeld ? round_ : std::nullopt;
}

void BenchSweeps::go_on() {
  const std::lock_guard lock(mutex_);
  if (state_ == State::kHeld) state_ = State::kRiding;
}

void BenchSweeps::stop() {
  std::unique_lock lock(mutex_);
  if (state_ != State::kOver) state_ = State::kStopping;
  changed_.wait(lock, [this] { return state_ == State::kOver; });
}

BenchSetup BenchSweeps::setup() const {
  const std::lock_guard lock(mutex_);
  return setup_;
}

std::vector<stream::FileExtent> BenchSweeps::extents() const {
  const std::lock_guard lock(mutex_);
  return extents_;
}

std::optional<Error> BenchSweeps::end_error() const {
  const std::lock_guard lock(mutex_);
  return end_error_;
}

// ---- the engine thread -------------------------------------------------------------------------

void BenchSweeps::begin_sweep(Clock::time_point now, SweepRows rows) {
  began_ = now;
  ended_ = Clock::time_point::max();
  reading_ = {};
  read_bytes_ = 0;
  if (rows.others == 0) return;
  const std::lock_guard lock(mutex_);
  setup_.other_jobs = std::max<uint64_t>(setup_.other_jobs, 1);
}

void BenchSweeps::add(const stream::Recorder::Taken& taken) {
  for (const stream::Span& span : taken.spans) {
    if (span.kind == stream::Span::Kind::kRead) add_read(span);
  }
  if (taken.lost == 0) return;
  const std::lock_guard lock(mutex_);
  setup_.lost_reads += taken.lost;
}

// The part of it that lies in the sweep: reading ahead goes over both of its ends.
void BenchSweeps::add_read(const stream::Span& span) {
  const Clock::time_point begin = std::max(span.begin, began_);
  const Clock::time_point end = std::min(span.end, ended_);
  if (begin >= end) return;
  reading_.add(nanoseconds(begin - began_), nanoseconds(end - began_));
  read_bytes_ += static_cast<double>(span.read_bytes) * seconds_between(begin, end) /
                 seconds_between(span.begin, span.end);
}

void BenchSweeps::end_sweep(const stream::IoCounters& io) {
  ended_ = Clock::now();
  sweep_ = {};
  sweep_.seconds = seconds_between(began_, ended_);
  sweep_.waiting_seconds = io.wait_seconds;
  sweep_.disk_bytes = io.read_bytes;
  sweep_.ram_bytes = io.cache_bytes;
  settled_by_ = ended_ + kSettling;
  const std::lock_guard lock(mutex_);
  if (state_ == State::kRiding) state_ = State::kSettling;
}

SweepObserver::Next BenchSweeps::next(const BetweenSweeps& between) {
  const State state = [this] {
    const std::lock_guard lock(mutex_);
    return state_;
  }();
  switch (state) {
    case State::kRiding: look_before_first(between); return Next::kRide;
    case State::kSettling: break;
    case State::kHeld: return Next::kWait;
    case State::kStopping:
    case State::kOver: return Next::kEnd;
  }
  if (between.model.weights().is_reading() && Clock::now() < settled_by_) return Next::kWait;
  finish_round(between);
  return Next::kWait;
}

void BenchSweeps::look_before_first(const BetweenSweeps& between) {
  if (!resident_before_) resident_before_ = between.model.weights().resident_bytes();
}

void BenchSweeps::finish_round(const BetweenSweeps& between) {
  sweep_.reading_seconds = static_cast<double>(reading_.length()) / 1e9;
  sweep_.read_bytes = read_bytes_;

  const SumRate sum = sum_resident(between);
  sweep_.ram_ceiling = sum.bytes_per_second;

  const std::lock_guard lock(mutex_);
  setup_.ceiling_ram_bytes = sum.bytes;
  note_model(between);
  round_ = sweep_;
  if (state_ == State::kSettling) state_ = State::kHeld;
  changed_.notify_all();
}

void BenchSweeps::note_model(const BetweenSweeps& between) {
  ActiveModel& model = between.model;
  const store::Shard& shard = model.model()->stored.shards.front();
  setup_.reader = model.weights().reader_name();
  setup_.is_direct = shard.file_of(shard.tensors.front()).is_direct();
  setup_.streams = model.reads();
  setup_.ram_bytes = model.ram_bytes();
  setup_.resident_bytes = model.weights().resident_bytes();
  if (!round_ && setup_.resident_bytes > resident_before_.value_or(0)) {
    setup_.cold_sweep_seconds = sweep_.seconds;
  }
  if (extents_.empty()) {
    extents_ =
        stream::extents_to_read(model.plan(), model.model()->stored.shards, model.host_plan());
  }
}

void BenchSweeps::on_generated(const engine::GenerateResult& result) {
  switch (result.finish_reason) {
    case engine::FinishReason::kCancelled:
      return job_ended(Error{ErrorCode::kCancelled, "cancelled", {}});
    case engine::FinishReason::kContext:
      return job_ended(
          Error{ErrorCode::kConfig,
                "neither the model's context nor the daemon's kv has room for so many sweeps",
                "ask for fewer with --sweeps, or give the daemon a larger --kv"});
    default: return job_ended(std::nullopt);
  }
}

void BenchSweeps::on_error(const Error& error) { job_ended(error); }

void BenchSweeps::job_ended(std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  end_error_ = std::move(error);
  state_ = State::kOver;
  changed_.notify_all();
}

}  // namespace airllm::schedule

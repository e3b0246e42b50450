// The sweeps of a bench, one at a time: its job waits behind each until the ceilings are measured.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

#include "base/union_length.h"
#include "engine/schedule/bench_result.h"
#include "engine/schedule/sweep_observer.h"
#include "engine/stream/tile.h"

namespace airllm::schedule {

// Both what a bench's generate job reports to and who observes its sweeps. Those are called by the
// engine thread, the rest by the bench's own.
class BenchSweeps : public SweepObserver, public engine::JobEvents {
 public:
  // Hands the progress of a model's first sweep on to `outer`, which outlives the job.
  explicit BenchSweeps(engine::JobEvents& outer) : outer_(outer) {}

  // Waits for the end of a sweep and of what it read ahead; the job then waits for go_on(). Nothing
  // when the job has ended: see end_error().
  std::optional<BenchRound> wait_for_round();
  void go_on();
  // Ends the job and waits for that.
  void stop();

  // ---- after wait_for_round() ----
  // What is known of the model in memory; rounds add to it.
  BenchSetup setup() const;
  // What the sweeps read from disk, or all weights where nothing streams.
  std::vector<stream::FileExtent> extents() const;
  // Why the job has ended, if not because it was to; kCancelled when it was cancelled.
  std::optional<Error> end_error() const;

  void begin_sweep(Clock::time_point now, SweepRows rows) override;
  void add(const stream::Recorder::Taken& taken) override;
  void end_sweep(const stream::IoCounters& io) override;
  bool paces() const override { return true; }
  Next next(const BetweenSweeps& between) override;

  void on_progress(const engine::Progress& progress) override { outer_.on_progress(progress); }
  void on_generated(const engine::GenerateResult& result) override;
  void on_error(const Error& error) override;

 private:
  enum class State : uint8_t {
    kRiding,    // before a sweep or in it
    kSettling,  // behind it: what is read ahead still comes in
    kHeld,      // the round is there
    kStopping,
    kOver,
  };

  void add_read(const stream::Span& span);
  void look_before_first(const BetweenSweeps& between);
  void finish_round(const BetweenSweeps& between);
  void note_model(const BetweenSweeps& between);  // lock held
  void job_ended(std::optional<Error> error);

  engine::JobEvents& outer_;

  // The engine thread's own.
  Clock::time_point began_, ended_, settled_by_;
  UnionLength reading_;
  double read_bytes_ = 0;
  BenchRound sweep_;
  std::optional<uint64_t> resident_before_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::kRiding;
  std::optional<BenchRound> round_;
  BenchSetup setup_;
  std::vector<stream::FileExtent> extents_;
  std::optional<Error> end_error_;
};

}  // namespace airllm::schedule

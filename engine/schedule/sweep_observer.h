// Who is told of the sweeps that carry a job: a profile that its client asked for, or a bench.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/schedule/active_model.h"
#include "engine/schedule/job.h"
#include "engine/stream/recorder.h"
#include "kernels/thread_pool.h"

namespace airllm::schedule {

// Rows of a sweep, by whose they are. Of others nothing else is told.
struct SweepRows {
  uint64_t own = 0;
  uint64_t others = 0;
};

// What there is between two sweeps. Borrows all.
struct BetweenSweeps {
  ActiveModel& model;
  kernels::ThreadPool& pool;
  const std::function<void()>& alive;  // to be called after each piece of work
};

// Called by the engine thread.
class SweepObserver {
 public:
  enum class Next : uint8_t { kRide, kWait, kEnd };

  virtual ~SweepObserver() = default;
  virtual void begin_sweep(Clock::time_point now, SweepRows rows) = 0;
  // What was recorded since the last call: in a sweep, and, of reading ahead, behind it.
  virtual void add(const stream::Recorder::Taken& taken) = 0;
  // The sweep is over, or the job left it: what it has used until now.
  virtual void end_sweep(const stream::IoCounters& io) = 0;
  // A token was chosen.
  virtual void add_sample(Clock::time_point /*begin*/) {}
  // The job ends. Nothing more is called.
  virtual void end() {}

  // Whether next() is to be asked before each sweep.
  virtual bool paces() const { return false; }
  // Whether the job rides the next sweep, waits, or ends.
  virtual Next next(const BetweenSweeps&) { return Next::kRide; }
};

}  // namespace airllm::schedule

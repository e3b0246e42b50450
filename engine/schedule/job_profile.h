// Where the time of one job goes: what happened in the sweeps that carried it, told to its client
// as they go on.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/model/stages.h"
#include "engine/schedule/job.h"
#include "engine/stream/recorder.h"

namespace airllm::schedule {

// Rows of a sweep, by whose they are. Of others a profile tells nothing else.
struct SweepRows {
  uint64_t own = 0;
  uint64_t others = 0;
};

// Used by the engine thread. Holds one batch of events; what the receiver has no room for, and what
// goes beyond kMostEvents, is left out and counted.
class JobProfile {
 public:
  static constexpr uint64_t kMostEvents = 500000;

  // Times count from `accepted_at`. Borrows `events`.
  JobProfile(engine::JobEvents& events, const std::vector<model::StageSpec>& stages,
             Clock::time_point accepted_at);

  void add(const stream::Recorder::Taken& taken);
  void add_sweep(Clock::time_point begin, SweepRows rows, const stream::IoCounters& io);
  // A token was chosen.
  void add_sample(Clock::time_point begin);
  // Sends what was added.
  void send();
  // The same, and how many were left out in all. Nothing may be added behind it.
  void end();

 private:
  engine::ProfileEvent at(Clock::time_point begin, Clock::time_point end) const;
  void add(engine::ProfileEvent event);
  void add(const stream::Span& span);

  engine::JobEvents& events_;
  const Clock::time_point accepted_at_;
  std::vector<std::string> stages_;  // their names
  std::vector<std::string> shards_;  // likewise
  std::vector<engine::ProfileEvent> batch_;
  uint64_t told_ = 0;
  uint64_t lost_ = 0;
  uint64_t lost_told_ = 0;
};

}  // namespace airllm::schedule

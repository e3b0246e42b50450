// Where the time of one job goes: what happened in the sweeps that carried it, told to its client
// as they go on.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/model/stages.h"
#include "engine/schedule/sweep_observer.h"

namespace airllm::schedule {

// Holds one batch of events; what the receiver has no room for, and what goes beyond kMostEvents,
// is left out and counted.
class JobProfile : public SweepObserver {
 public:
  static constexpr uint64_t kMostEvents = 500000;

  // Times count from `accepted_at`. Borrows `events`.
  JobProfile(engine::JobEvents& events, const std::vector<model::StageSpec>& stages,
             Clock::time_point accepted_at);

  void begin_sweep(Clock::time_point now, SweepRows rows) override;
  void add(const stream::Recorder::Taken& taken) override;
  // Sends what was added.
  void end_sweep(const stream::IoCounters& io) override;
  void add_sample(Clock::time_point begin) override;
  // Sends what is left, and how many were left out in all.
  void end() override;

 private:
  void send();
  engine::ProfileEvent at(Clock::time_point begin, Clock::time_point end) const;
  void add(engine::ProfileEvent event);
  void add(const stream::Span& span);

  engine::JobEvents& events_;
  const Clock::time_point accepted_at_;
  std::vector<std::string> stages_;  // their names
  std::vector<std::string> shards_;  // likewise
  Clock::time_point sweep_began_;
  SweepRows sweep_rows_;
  std::vector<engine::ProfileEvent> batch_;
  uint64_t told_ = 0;
  uint64_t lost_ = 0;
  uint64_t lost_told_ = 0;
};

}  // namespace airllm::schedule

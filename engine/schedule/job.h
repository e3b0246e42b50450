// Jobs as the engine keeps them: what `ps` shows and `cancel` reaches.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "engine/engine.h"

namespace airllm::schedule {

using Clock = std::chrono::steady_clock;

// A kTemporary error; `by` may say whose jobs these are: " by job 3 of user ann".
inline Unexpected model_in_use(const std::string& name, const std::string& by = {}) {
  return Unexpected(ErrorCode::kTemporary, "the model '" + name + "' is in use" + by,
                    "wait for its jobs (airllm ps), or end them with airllm cancel");
}

inline double milliseconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// Thread-safe. One per job, from submission to its end.
class JobRecord {
 public:
  JobRecord(engine::JobId id, std::string kind, uid_t user, engine::ModelRef model) {
    info_.job = id;
    info_.kind = std::move(kind);
    info_.user = user;
    info_.model = std::move(model);
    info_.state = "queued";
  }

  // These never change.
  engine::JobId id() const { return info_.job; }
  const std::string& kind() const { return info_.kind; }
  uid_t user() const { return info_.user; }
  const engine::ModelRef& model() const { return info_.model; }

  template <typename Change>
  void update(const Change& change) {
    const std::lock_guard lock(mutex_);
    change(info_);
  }
  engine::JobInfo info() const {
    const std::lock_guard lock(mutex_);
    engine::JobInfo copy = info_;
    copy.age_seconds = milliseconds_between(submitted_, Clock::now()) / 1000;
    return copy;
  }

  void request_cancel() { stop_.request_stop(); }
  bool is_cancelled() const { return stop_.stop_requested(); }
  std::stop_token stop_token() const { return stop_.get_token(); }

 private:
  const Clock::time_point submitted_ = Clock::now();
  std::stop_source stop_;
  mutable std::mutex mutex_;
  engine::JobInfo info_;
};

}  // namespace airllm::schedule

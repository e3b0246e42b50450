// The engine thread: turns jobs into sweeps.
//
// First come, first served. All running jobs of one model ride the same sweep; a job joins before a
// sweep and leaves after one. A job for another model waits until the running ones are done, and
// those that come after it wait too, so no model starves. When keys and values run out, the
// youngest job gives its own up and computes them again later: its answer stays the same. A user
// whose share of them is used up is served from that share alone: their own jobs give way or wait.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/schedule/active_model.h"
#include "engine/schedule/debug_hang.h"
#include "engine/schedule/generate_job.h"
#include "engine/schedule/serial_worker.h"
#include "engine/store/load_marks.h"
#include "engine/stream/device.h"

namespace airllm::schedule {

struct SchedulerOptions {
  uint64_t ram_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t kv_per_user_bytes = 0;
  std::chrono::milliseconds pause_timeout{10000};
  // As in engine::EngineOptions.
  std::chrono::milliseconds read_timeout{120000};
  std::function<void()> on_alive;
  std::chrono::milliseconds alive_interval{1000};
  std::optional<engine::DebugHang> debug_hang;
};

// A row of status(): a model that holds memory.
struct ModelMemory {
  engine::ModelRef model;
  uint64_t resident_bytes = 0;  // weights in memory
  uint64_t ram_bytes = 0;       // taken of the budget
  uint64_t weight_bytes = 0;    // of a whole sweep
  bool streams = false;         // reads from disk in every sweep
};

struct MemoryStatus {
  uint64_t ram_used_bytes = 0;
  uint64_t kv_used_bytes = 0;
  std::vector<ModelMemory> models;
};

// Public methods are thread-safe.
class Scheduler {
 public:
  // Borrows `marks`.
  Scheduler(std::unique_ptr<stream::Device> device, store::LoadMarks& marks,
            const SchedulerOptions& options);
  // Cancels all jobs and joins the engine thread. What reads that hang still use is never freed.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Takes an accepted job over.
  void submit(std::unique_ptr<GenerateJob> job);
  // A job's cancellation was requested: look at it within a tile.
  void notice_cancel();
  // Gives the memory of a model that is being removed back, once it is idle.
  void forget(std::shared_ptr<const LoadedModel> model);
  MemoryStatus memory() const;
  void set_timeouts(std::chrono::milliseconds read, std::chrono::milliseconds pause) {
    read_timeout_ = read;
    pause_timeout_ = pause;
  }

 private:
  using Jobs = std::vector<std::unique_ptr<GenerateJob>>;
  struct BatchJob {
    GenerateJob* job;
    size_t rows;
  };

  void loop();
  void alive() const;
  bool wait_for_work();
  void take_submissions();
  void drop_cancelled();
  void admit();
  bool activate(const std::shared_ptr<const LoadedModel>& model);
  Result<ActiveModel*> make_active(const std::shared_ptr<const LoadedModel>& model);
  uint64_t ram_in_use() const;
  void drop_forgotten();
  void give_up_active();
  void retire(std::unique_ptr<ActiveModel> model, std::chrono::milliseconds patience);
  void drop_unused();
  void sweep();
  void wait_for_receivers();
  Status run_sweep();
  void run_aside(std::function<void()> task);
  void plan_rows();
  std::vector<GenerateJob*> in_turn(bool decoding) const;
  bool is_running(const GenerateJob& wanted) const;
  size_t add_rows(GenerateJob& job, size_t most_rows, size_t& logit_rows_left);
  bool make_room(GenerateJob& job, size_t positions);
  size_t blocks_of(uid_t user) const;
  size_t blocks_per_user() const;
  bool is_in_batch(const GenerateJob& job) const;
  Jobs::iterator find_victim(const GenerateJob& job, bool own_only);
  void preempt(Jobs::iterator victim);
  Status between_tiles();
  Status while_waiting();
  Status check_cancelled();
  // For the jobs of the batch that asked for a profile.
  void begin_recording();
  void tell_recorded();
  void tell_sweep(const BatchJob& entry, const stream::IoCounters& io);
  void finish_sweep(const Status& status);
  void give_logits();
  void remove_finished();
  void publish_memory();

  const std::unique_ptr<stream::Device> device_;
  store::LoadMarks& marks_;
  const SchedulerOptions options_;

  // The engine thread's own.
  std::vector<std::unique_ptr<ActiveModel>> models_;  // most recently used last
  ActiveModel* active_ = nullptr;
  std::vector<std::unique_ptr<ActiveModel>> set_aside_;  // reads of theirs hang
  std::deque<std::unique_ptr<GenerateJob>> waiting_;
  Jobs running_;  // in the order of arrival

  uint64_t sweep_number_ = 0;
  Clock::time_point sweep_began_;
  std::vector<BatchJob> batch_;
  std::vector<model::Row> rows_;

  DebugHang debug_hang_;
  std::atomic<std::chrono::milliseconds> read_timeout_, pause_timeout_;
  std::atomic<bool> cancel_noticed_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<GenerateJob>> submitted_;
  std::vector<std::shared_ptr<const LoadedModel>> forgotten_;
  MemoryStatus memory_;
  bool stopping_ = false;

  SerialWorker errands_;  // what waits for the disk, which the engine thread must not
  std::thread thread_;
};

}  // namespace airllm::schedule

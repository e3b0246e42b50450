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
  stream::ReaderKind reader = stream::ReaderKind::kAuto;
  std::chrono::milliseconds pause_timeout{10000};
  // As in engine::EngineOptions.
  std::chrono::milliseconds read_timeout{120000};
  std::function<void()> on_alive;
  std::chrono::milliseconds alive_interval{1000};
  std::optional<engine::DebugHang> debug_hang;
  std::chrono::milliseconds keep_alive = kForever;
  std::vector<std::string> keep;
  // As in engine::EngineOptions, and what it held at the start.
  engine::MemoryStore* memory_store = nullptr;
  Budgets defaults;
  // A model has given its memory back since nobody asked it. May be empty.
  std::function<void(const engine::ModelRef&)> on_expired;
};

// A row of status(): a model that holds memory.
struct ModelMemory {
  engine::ModelRef model;
  bool is_received = false;     // from before the start, and nobody has asked it since
  uint64_t resident_bytes = 0;  // weights in memory
  uint64_t ram_bytes = 0;       // taken of the budget
  uint64_t vram_bytes = 0;      // taken of the device's own memory, without keys and values
  uint64_t weight_bytes = 0;    // of a whole sweep
  bool streams = false;         // reads from disk in every sweep
  const char* reader = "";      // stream::WeightStream::reader_name()
  bool is_direct = false;       // past the page cache
  uint64_t locked_bytes = 0;
  bool has_huge_pages = false;
  size_t experts = 0;         // of all layers; 0: a dense model
  size_t expert_slots = 0;    // how many of them memory has room for
  uint64_t expert_bytes = 0;  // of experts in memory
  stream::ExpertCounters expert_use = {};
  bool is_in_use = false;  // jobs run with it or wait for it
  bool is_kept = false;    // by the setting
  std::chrono::milliseconds keep_alive{0};
  Clock::time_point idle_since;
};

struct MemoryStatus {
  uint64_t ram_used_bytes = 0;
  uint64_t ram_budget_bytes = 0;  // less than the setting under memory pressure
  std::string budget_reason;      // of the last change; empty: none yet
  uint64_t kv_used_bytes = 0;
  uint64_t vram_used_bytes = 0, vram_peak_bytes = 0;  // of a device with memory of its own
  std::vector<ModelMemory> models;
};

// Public methods are thread-safe.
class Scheduler {
 public:
  // Borrows `marks`. What is `received` from an earlier process counts as models that nobody asks,
  // until they are asked.
  Scheduler(std::unique_ptr<stream::Device> device, store::LoadMarks& marks,
            const SchedulerOptions& options, std::vector<LastingWeights> received = {});
  // Cancels all jobs and joins the engine thread. What reads that hang still use is never freed.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Takes an accepted job over.
  void submit(std::unique_ptr<GenerateJob> job);
  // A job's cancellation was requested: look at it within a tile.
  void notice_cancel();
  // Gives the memory of a model that is being removed back, once it is idle. `model` is null when
  // it is not loaded.
  void forget(const engine::ModelRef& ref, std::shared_ptr<const LoadedModel> model);
  // Gives a model's memory back at once, also between the tiles of another's sweep, and tells from
  // the engine thread how many bytes that were: nothing for one that has none. kTemporary when jobs
  // use it, or wait for it.
  using Released = std::function<void(Result<std::optional<uint64_t>> freed_bytes)>;
  void release(const engine::ModelRef& ref, std::shared_ptr<const LoadedModel> model,
               Released done);
  MemoryStatus memory() const;
  void set_timeouts(std::chrono::milliseconds read, std::chrono::milliseconds pause) {
    read_timeout_ = read;
    pause_timeout_ = pause;
  }
  std::chrono::milliseconds read_timeout() const { return read_timeout_; }
  void set_keeping(std::chrono::milliseconds keep_alive, std::vector<std::string> keep);
  // The RAM budget from now on, at most the setting, and why. Under a smaller one idle models go
  // first; one in use gets a smaller plan between two sweeps, and its sequences go on.
  void set_ram_budget(uint64_t bytes, std::string reason);

 private:
  using Jobs = std::vector<std::unique_ptr<GenerateJob>>;
  struct BatchJob {
    GenerateJob* job;
    size_t rows;
  };
  struct Release {
    engine::ModelRef ref;
    std::shared_ptr<const LoadedModel> model;  // null: not loaded
    Released done;                             // empty: of a model that is being removed
  };

  void loop();
  void alive() const;
  bool wait_for_work();
  void take_submissions();
  void drop_cancelled();
  void admit();
  bool activate(const std::shared_ptr<const LoadedModel>& model);
  Result<ActiveModel*> make_active(const std::shared_ptr<const LoadedModel>& model);
  Result<std::unique_ptr<ActiveModel>> make_model(const std::shared_ptr<const LoadedModel>& model);
  Result<std::unique_ptr<ActiveModel>> take_memory(const std::shared_ptr<const LoadedModel>& model,
                                                   PlannedMemory memory,
                                                   std::unique_ptr<kv::KvPool>& kv);
  std::optional<PlannedMemory> adopt_received(const LoadedModel& model);
  Result<stream::Plan> plan_received(const LoadedModel& model, const LastingWeights& weights);
  std::optional<LastingWeights> take_received(const engine::ModelRef& ref);
  std::optional<uint64_t> drop_received(const engine::ModelRef& ref);
  bool drop_a_received(bool kept);
  bool is_awaited(const engine::ModelRef& ref) const;
  void forget_lasting(const std::string& name) const;
  void give_back(LastingWeights& weights) const;
  void publish_received(MemoryStatus& status);
  uint64_t ram_in_use() const;
  void give_back();
  void give_back_released();
  void give_back_expired();
  Clock::time_point expiry(const ActiveModel& model) const;
  std::chrono::milliseconds keep_alive_of(const ActiveModel& model) const;
  Clock::time_point received_expiry(const LastingWeights& weights) const;
  bool is_kept(const engine::ModelRef& ref) const;
  void make_room_for(const ModelBudget& need);
  uint64_t ram_left() const;
  ModelBudget budget_left() const;
  void take_budget();
  void follow_budget();
  void replan_active(uint64_t ram_bytes);
  void restart_running();
  stream::StreamOptions stream_options();
  Error without_room(Error error, const LoadedModel& model) const;
  Clock::time_point next_look() const;
  bool is_wanted(const std::shared_ptr<const LoadedModel>& model) const;
  std::optional<uint64_t> drop(const std::shared_ptr<const LoadedModel>& model);
  void give_up_active();
  void retire(std::unique_ptr<ActiveModel> model, std::chrono::milliseconds patience);
  bool stop(std::unique_ptr<ActiveModel>& model, std::chrono::milliseconds patience);
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
  // For the jobs of the batch whose sweeps are observed.
  void begin_recording();
  void tell_recorded();
  void tell_sweep(const BatchJob& entry, const stream::IoCounters& io);
  void ask_who_paces();
  void tell_read_ahead();
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
  std::vector<LastingWeights> received_;
  const Clock::time_point started_ = Clock::now();
  std::vector<std::unique_ptr<ActiveModel>> set_aside_;  // reads of theirs hang
  uint64_t ram_budget_bytes_;
  Clock::time_point next_expiry_ = Clock::time_point::max();
  std::deque<std::unique_ptr<GenerateJob>> waiting_;
  Jobs running_;  // in the order of arrival

  uint64_t sweep_number_ = 0;
  uint64_t recorded_sweep_ = 0;  // the last one of an observed job
  std::vector<BatchJob> batch_;
  std::vector<model::Row> rows_;

  DebugHang debug_hang_;
  std::atomic<std::chrono::milliseconds> read_timeout_, pause_timeout_, keep_alive_;
  std::atomic<bool> cancel_noticed_{false};
  std::atomic<bool> change_noticed_{false};  // of releases_, budget, or what keeps models
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<GenerateJob>> submitted_;
  std::vector<Release> releases_;
  std::vector<std::string> keep_;
  uint64_t wanted_budget_bytes_;
  std::string budget_reason_;
  MemoryStatus memory_;
  bool stopping_ = false;

  SerialWorker errands_;  // what waits for the disk, which the engine thread must not
  std::thread thread_;
};

}  // namespace airllm::schedule

#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <future>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/event.h"
#include "base/log.h"
#include "engine/schedule/job_limits.h"

namespace airllm::schedule {
namespace {

// How long a model that goes waits for its reads under way, which come back within milliseconds
// unless something is wrong with the disk.
constexpr auto kReadPatience = std::chrono::milliseconds(500);
constexpr auto kErrandInterval = std::chrono::milliseconds(20);
// Each keeps up to two tiles; more would go beyond what the daemon may take besides its budgets.
constexpr size_t kMostSetAside = 4;

template <typename Jobs>
void end_cancelled(Jobs& jobs) {
  for (auto& job : jobs) {
    if (job->record().is_cancelled() && !job->is_finished()) {
      job->finish(engine::FinishReason::kCancelled);
    }
  }
}

// Ends the cancelled ones of `jobs` and takes them out, with those that ended before.
template <typename Jobs>
void remove_cancelled(Jobs& jobs) {
  end_cancelled(jobs);
  std::erase_if(jobs, [](const auto& job) { return job->is_finished(); });
}

// How often paused jobs are looked at when nobody else runs.
constexpr auto kPauseInterval = std::chrono::milliseconds(10);

}  // namespace

Scheduler::Scheduler(std::unique_ptr<stream::Device> device, store::LoadMarks& marks,
                     const SchedulerOptions& options, std::vector<LastingWeights> received)
    : device_(std::move(device)),
      marks_(marks),
      options_(options),
      received_(std::move(received)),
      ram_budget_bytes_(options.ram_bytes),
      debug_hang_(options.debug_hang),
      read_timeout_(options.read_timeout),
      pause_timeout_(options.pause_timeout),
      keep_alive_(options.keep_alive),
      keep_(options.keep),
      wanted_budget_bytes_(options.ram_bytes) {
  publish_memory();
  thread_ = std::thread([this] { loop(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  cancel_noticed_ = true;
  changed_.notify_all();
  thread_.join();
}

void Scheduler::submit(std::unique_ptr<GenerateJob> job) {
  {
    const std::lock_guard lock(mutex_);
    submitted_.push_back(std::move(job));
  }
  changed_.notify_all();
}

void Scheduler::notice_cancel() {
  {
    const std::lock_guard lock(mutex_);
    cancel_noticed_ = true;
  }
  changed_.notify_all();
}

void Scheduler::forget(const engine::ModelRef& ref, std::shared_ptr<const LoadedModel> model) {
  release(ref, std::move(model), {});
}

void Scheduler::release(const engine::ModelRef& ref, std::shared_ptr<const LoadedModel> model,
                        Released done) {
  {
    const std::lock_guard lock(mutex_);
    releases_.push_back({ref, std::move(model), std::move(done)});
  }
  change_noticed_ = true;
  changed_.notify_all();
}

MemoryStatus Scheduler::memory() const {
  const std::lock_guard lock(mutex_);
  return memory_;
}

void Scheduler::loop() {
  while (wait_for_work()) {
    drop_cancelled();
    admit();
    if (!running_.empty()) sweep();
  }
  for (auto& job : running_) job->finish(engine::FinishReason::kCancelled);
  for (auto& job : waiting_) job->finish(engine::FinishReason::kCancelled);
  running_.clear();
  waiting_.clear();
  give_back();
  for (auto& model : models_) stop(model, kReadPatience);  // what may outlast the engine stays
  models_.clear();
  drop_unused();
  // Their threads write to this memory when their reads come back, if ever.
  for (auto& model : set_aside_) static_cast<void>(model.release());
}

void Scheduler::alive() const {
  if (options_.on_alive) options_.on_alive();
}

// Returns false when the scheduler stops.
bool Scheduler::wait_for_work() {
  const auto is_wanted = [this] {
    return stopping_ || !submitted_.empty() || !releases_.empty() || !running_.empty() ||
           !waiting_.empty() || cancel_noticed_ || change_noticed_;
  };
  alive();
  drop_unused();
  if (active_ != nullptr && running_.empty()) active_->kv().trim();
  {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_until(lock, next_look(), is_wanted)) {
      lock.unlock();
      alive();
      drop_unused();
      give_back();
      lock.lock();
    }
  }
  take_submissions();
  give_back();
  const std::lock_guard lock(mutex_);
  return !stopping_;
}

// When an idle engine thread has something to do though nobody asks.
Clock::time_point Scheduler::next_look() const {
  constexpr auto kSeldom = std::chrono::hours(1);
  const bool is_watched = options_.on_alive || !set_aside_.empty();
  const Clock::duration most = is_watched ? Clock::duration(options_.alive_interval) : kSeldom;
  return std::min(next_expiry_, Clock::now() + most);
}

void Scheduler::take_submissions() {
  const std::lock_guard lock(mutex_);
  for (auto& job : submitted_) waiting_.push_back(std::move(job));
  submitted_.clear();
}

// Whether a job runs with the model or waits for it.
bool Scheduler::is_wanted(const std::shared_ptr<const LoadedModel>& model) const {
  const auto uses_it = [&](const auto& job) {
    return job->model() == model && !job->is_finished();
  };
  return std::any_of(running_.begin(), running_.end(), uses_it) ||
         std::any_of(waiting_.begin(), waiting_.end(), uses_it);
}

// Gives the memory of an idle model back; its bytes, nothing when it has none.
std::optional<uint64_t> Scheduler::drop(const std::shared_ptr<const LoadedModel>& model) {
  const auto found = std::find_if(models_.begin(), models_.end(),
                                  [&](const auto& active) { return active->model() == model; });
  if (found == models_.end()) return std::nullopt;
  const uint64_t bytes = (*found)->ram_bytes();
  if (active_ == found->get()) active_ = nullptr;
  retire(std::move(*found), kReadPatience);
  models_.erase(found);
  return bytes;
}

// A read of the active model hangs. Its jobs that were not in the sweep begin again with new
// memory.
void Scheduler::give_up_active() {
  remove_finished();
  restart_running();
  const auto found = std::find_if(models_.begin(), models_.end(),
                                  [&](const auto& model) { return model.get() == active_; });
  AIRLLM_CHECK(found != models_.end());
  std::unique_ptr<ActiveModel> model = std::move(*found);
  models_.erase(found);
  active_ = nullptr;
  retire(std::move(model), std::chrono::milliseconds(0));
}

// Destroys the model, or sets it aside while its reads hang.
void Scheduler::retire(std::unique_ptr<ActiveModel> model, std::chrono::milliseconds patience) {
  forget_lasting(model->lasting_name());
  const std::string name = model->model()->name();
  if (!stop(model, patience)) return;
  model->discard_memory();
  log::event_happened(log::event::kModelReleased, {{log::kModelField, name}},
                      "model {}: its memory is released", name);
}

// False when its reads hang and it is set aside.
bool Scheduler::stop(std::unique_ptr<ActiveModel>& model, std::chrono::milliseconds patience) {
  if (model->stop(patience)) return true;
  const std::string& name = model->model()->name();
  log::event_happened(log::event::kReadHangs, {{log::kModelField, name}},
                      "model {}: a read does not come back; its memory is set aside", name);
  set_aside_.push_back(std::move(model));
  return false;
}

void Scheduler::drop_unused() {
  std::erase_if(set_aside_, [](const auto& model) { return model->is_unused(); });
}

void Scheduler::drop_cancelled() {
  if (!cancel_noticed_.exchange(false)) return;
  end_cancelled(running_);
  remove_finished();
  remove_cancelled(waiting_);
  publish_memory();
}

// Moves waiting jobs into the running ones as far as model and KV memory allow. Only jobs of users
// whose share is taken are overtaken.
void Scheduler::admit() {
  std::set<uid_t> held_back;
  for (size_t at = 0; at < waiting_.size();) {
    GenerateJob& job = *waiting_[at];
    const bool is_other_model = active_ == nullptr || active_->model() != job.model();
    if (is_other_model) {
      if (!running_.empty()) return;
      if (!activate(job.model())) continue;
    }
    const size_t blocks = job.tokens().size() / kernels::kKvPagePositions + 1;
    const size_t own = blocks_of(job.user());
    if (held_back.contains(job.user()) || (own > 0 && own + blocks > blocks_per_user())) {
      held_back.insert(job.user());
      ++at;
      continue;
    }
    if (!running_.empty() && blocks > active_->kv().free_blocks()) return;
    job.attach(active_->kv());
    running_.push_back(std::move(waiting_[at]));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(at));
    publish_memory();
  }
}

// Makes `model` the active one, or fails the first waiting job and returns false.
bool Scheduler::activate(const std::shared_ptr<const LoadedModel>& model) {
  if (active_ != nullptr) active_->kv().trim();
  Result<ActiveModel*> active = make_active(model);
  if (!active) {
    active_ = nullptr;
    waiting_.front()->fail(active.error());
    waiting_.pop_front();
    return false;
  }
  active_ = *active;
  publish_memory();
  return true;
}

Result<ActiveModel*> Scheduler::make_active(const std::shared_ptr<const LoadedModel>& model) {
  const auto found = std::find_if(models_.begin(), models_.end(),
                                  [&](const auto& active) { return active->model() == model; });
  if (found != models_.end()) {
    std::rotate(found, found + 1, models_.end());
    return models_.back().get();
  }
  if (set_aside_.size() >= kMostSetAside) {
    return Unexpected(ErrorCode::kIo,
                      "model " + model->name() + ": the reads of " +
                          std::to_string(set_aside_.size()) + " earlier attempts still hang",
                      "check the disk (dmesg tells of its errors), then restart the daemon");
  }
  Result<std::unique_ptr<ActiveModel>> made = make_model(model);
  if (!made) return Unexpected(without_room(std::move(made).error(), *model));
  models_.push_back(std::move(*made));
  return models_.back().get();
}

// With what an earlier process has left of it, if that is of use.
Result<std::unique_ptr<ActiveModel>> Scheduler::make_model(
    const std::shared_ptr<const LoadedModel>& model) {
  std::unique_ptr<kv::KvPool> kv;
  if (std::optional<PlannedMemory> received = adopt_received(*model)) {
    AIRLLM_TRY(kv, ActiveModel::make_kv(*model, *device_, budget_left()));
    Result<std::unique_ptr<ActiveModel>> made = take_memory(model, std::move(*received), kv);
    if (made) return made;
    log::warning("model {}: {}", model->name(), made.error().message);
  }
  ModelBudget all = budget_left();
  all.ram_bytes = ram_budget_bytes_;
  if (all.vram_bytes) all.vram_bytes = device_->arena()->capacity_bytes();
  make_room_for(ActiveModel::full_budget(*model, all));
  if (kv == nullptr) {
    AIRLLM_TRY(kv, ActiveModel::make_kv(*model, *device_, budget_left()));
  }
  AIRLLM_TRY(PlannedMemory memory,
             ActiveModel::plan_memory(*model, budget_left(), options_.defaults));
  return take_memory(model, std::move(memory), kv);
}

Result<std::unique_ptr<ActiveModel>> Scheduler::take_memory(
    const std::shared_ptr<const LoadedModel>& model, PlannedMemory memory,
    std::unique_ptr<kv::KvPool>& kv) {
  const std::string name = memory.lasting ? memory.lasting->name() : "";
  const bool is_held = memory.is_adopted;
  alive();
  Result<std::unique_ptr<ActiveModel>> made = ActiveModel::create(
      model, *device_, std::move(memory), kv, stream_options(), [this] { return while_waiting(); });
  if (!made) {
    if (!name.empty()) forget_lasting(name);
    return made;
  }
  alive();
  (*made)->set_shrunk(ram_budget_bytes_ < options_.ram_bytes);
  if (options_.memory_store != nullptr && !is_held && !(*made)->lasting_name().empty()) {
    options_.memory_store->keep(name, (*made)->slab().lasting_fd());
  }
  return made;
}

stream::StreamOptions Scheduler::stream_options() {
  stream::StreamOptions options;
  options.reader = options_.reader;
  if (debug_hang_.concerns_reads()) {
    options.before_read = [this] { debug_hang_.at_read(); };
  }
  return options;
}

// The running jobs begin again with new memory, in the same order.
void Scheduler::restart_running() {
  while (!running_.empty()) {
    running_.back()->preempt();
    waiting_.push_front(std::move(running_.back()));
    running_.pop_back();
  }
}

uint64_t Scheduler::ram_left() const {
  return ram_budget_bytes_ - std::min(ram_budget_bytes_, ram_in_use());
}

ModelBudget Scheduler::budget_left() const {
  ModelBudget left{ram_left(), {}, options_.kv_bytes};
  if (device_->arena() != nullptr) left.vram_bytes = device_->arena()->free_bytes();
  return left;
}

uint64_t Scheduler::ram_in_use() const {
  uint64_t sum = 0;
  for (const auto& active : models_) sum += active->ram_bytes();
  for (const LastingWeights& weights : received_) sum += weights.bytes();
  return sum;
}

void Scheduler::sweep() {
  follow_budget();
  if (!running_.empty()) ask_who_paces();
  if (running_.empty()) return;
  plan_rows();
  if (rows_.empty()) {
    remove_finished();
    if (!running_.empty()) wait_for_receivers();
    return;
  }
  const Clock::time_point now = Clock::now();
  for (const BatchJob& entry : batch_) entry.job->sweep_started(now);
  begin_recording();
  const std::chrono::duration<double> read_deadline = read_timeout_.load();
  active_->weights().set_read_deadline(read_deadline.count());
  finish_sweep(run_sweep());
  if (active_->weights().has_late_read()) give_up_active();
  remove_finished();
  publish_memory();
}

// All running jobs pause: looks again soon, at once when there is something new.
void Scheduler::wait_for_receivers() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPauseInterval,
                    [this] { return stopping_ || !submitted_.empty() || cancel_noticed_; });
}

// Marks the model as loading until its first whole sweep is done.
Status Scheduler::run_sweep() {
  const std::string& place = active_->model()->stored.place;
  const bool is_loading = !active_->is_proven();
  if (is_loading) run_aside([this, place] { marks_.begin(place); });
  Status status =
      active_->forward().run(rows_, active_->weights(), [this] { return between_tiles(); });
  if (!is_loading) return status;
  if (status) {
    active_->set_proven();
    run_aside([this, place] { marks_.clear(place); });
  } else {
    run_aside([this, place] { marks_.end(place); });
  }
  return status;
}

// Waits for `task`, which may take its time with the disk, and is alive meanwhile; for one that
// hangs no longer than for a read.
void Scheduler::run_aside(std::function<void()> task) {
  auto done = std::make_shared<std::promise<void>>();
  const std::future<void> is_done = done->get_future();
  errands_.post([task = std::move(task), done] {
    task();
    done->set_value();
  });
  const Clock::time_point end = Clock::now() + read_timeout_.load();
  while (is_done.wait_for(kErrandInterval) != std::future_status::ready) {
    alive();
    if (Clock::now() < end) continue;
    log::error("the store's disk does not answer");
    return;
  }
}

// The batch: one row for every job that decodes, and what room is left for prompts, in the order of
// arrival.
void Scheduler::plan_rows() {
  batch_.clear();
  rows_.clear();
  ++sweep_number_;
  const model::BatchLimits& limits = active_->forward().limits();
  size_t logit_rows_left = limits.logit_rows;
  for (const auto& job : running_) job->follow_length();
  for (const bool decoding : {true, false}) {
    for (GenerateJob* job : in_turn(decoding)) {
      if (!is_running(*job)) continue;  // make_room took it off
      const size_t rows = add_rows(*job, limits.rows - rows_.size(), logit_rows_left);
      if (rows == 0) continue;
      batch_.push_back({job, rows});
      job->ride(sweep_number_);
    }
  }
}

// The running jobs that decode, or those that have a prompt to compute. When not all that decode
// fit a sweep, those go first that waited longest.
std::vector<GenerateJob*> Scheduler::in_turn(bool decoding) const {
  std::vector<GenerateJob*> jobs;
  for (const auto& job : running_) {
    if (!job->is_finished() && (job->pending() == 1) == decoding) jobs.push_back(job.get());
  }
  if (decoding) {
    std::stable_sort(jobs.begin(), jobs.end(), [](const GenerateJob* a, const GenerateJob* b) {
      return a->last_sweep() < b->last_sweep();
    });
  }
  return jobs;
}

bool Scheduler::is_running(const GenerateJob& wanted) const {
  return std::any_of(running_.begin(), running_.end(),
                     [&](const auto& job) { return job.get() == &wanted; });
}

size_t Scheduler::add_rows(GenerateJob& job, size_t most_rows, size_t& logit_rows_left) {
  const Clock::time_point now = Clock::now();
  const size_t taken = job.logit_rows_taken(now);
  const size_t most_logits = std::min(logit_rows_left, taken);
  // Each sweep makes more of a profile, with logits or without.
  if (job.observer() != nullptr && taken == 0) most_rows = 0;
  if (!job.rides_next()) most_rows = 0;
  size_t count = 0;
  size_t logits = 0;
  const size_t first = job.computed();
  while (count < std::min(most_rows, job.pending())) {
    if (job.wants_logits(first + count)) {
      if (logits == most_logits) break;
      ++logits;
    }
    ++count;
  }
  if (count == 0 && job.paused_since() && now - *job.paused_since() > pause_timeout_.load()) {
    log::warning("job {}: cancelled, its client does not read", job.record().id());
    job.fail(slow_receiver_error(pause_timeout_));
  }
  if (count == 0 || !make_room(job, first + count)) return 0;
  logit_rows_left -= logits;
  for (size_t i = first; i < first + count; ++i) {
    rows_.push_back({job.tokens()[i], static_cast<uint32_t>(i),
                     static_cast<uint32_t>(job.tokens().size()), &job.sequence(),
                     job.wants_logits(i)});
  }
  return count;
}

// KV room for `positions` of the job. When its user's share is full, the user's own younger jobs
// that are not in this batch yet give theirs up; when all memory is full, those of others do, too.
// When there are none, the job waits, or, being alone with that memory, ends.
bool Scheduler::make_room(GenerateJob& job, size_t positions) {
  const size_t wanted = (positions + kernels::kKvPagePositions - 1) / kernels::kKvPagePositions;
  while (true) {
    const size_t more = wanted - std::min(wanted, job.sequence().blocks());
    const bool over_share = more > 0 && blocks_of(job.user()) + more > blocks_per_user();
    if (!over_share && job.sequence().reserve(positions)) return true;
    const Jobs::iterator victim = find_victim(job, over_share);
    if (victim != running_.end()) {
      preempt(victim);
      continue;
    }
    const bool is_alone = std::none_of(running_.begin(), running_.end(), [&](const auto& other) {
      return other.get() != &job && (!over_share || other->user() == job.user());
    });
    if (is_alone) {
      const char* const setting = over_share ? "kv-per-user" : "kv";
      log::info("job {}: keys and values fill --{} at {} tokens", job.record().id(), setting,
                job.tokens().size());
      job.end_without_room(setting);
    }
    return false;
  }
}

size_t Scheduler::blocks_of(uid_t user) const {
  size_t blocks = 0;
  for (const auto& job : running_) {
    if (job->user() == user) blocks += job->sequence().blocks();
  }
  return blocks;
}

size_t Scheduler::blocks_per_user() const {
  return options_.kv_per_user_bytes / active_->kv().shape().block_bytes();
}

bool Scheduler::is_in_batch(const GenerateJob& job) const {
  return std::any_of(batch_.begin(), batch_.end(),
                     [&](const BatchJob& entry) { return entry.job == &job; });
}

// Whose keys and values make room for `job`: the youngest job after it of the same user or, without
// `own_only`, of a user who holds as much; else any of a user who holds more. running_.end() when
// there is none. Nobody is pushed out by one who holds more, and, since the lightest may push out
// the heaviest, not everybody can wait for everybody.
Scheduler::Jobs::iterator Scheduler::find_victim(const GenerateJob& job, bool own_only) {
  const size_t own = blocks_of(job.user());
  bool is_younger = true;
  for (auto other = running_.end(); other != running_.begin();) {
    --other;
    if (other->get() == &job) {
      is_younger = false;
      continue;
    }
    if ((*other)->is_finished() || is_in_batch(**other)) continue;
    const bool is_own = (*other)->user() == job.user();
    if (is_own && is_younger) return other;
    if (is_own || own_only) continue;
    const size_t theirs = blocks_of((*other)->user());
    if (theirs > own || (theirs == own && is_younger)) return other;
  }
  return running_.end();
}

void Scheduler::preempt(Jobs::iterator victim) {
  log::info("job {}: gives its keys and values up, to be computed again", (*victim)->record().id());
  (*victim)->preempt();
  waiting_.push_front(std::move(*victim));
  running_.erase(victim);
}

Status Scheduler::check_cancelled() {
  if (!cancel_noticed_) return {};
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Unexpected(ErrorCode::kCancelled, "the engine stops");
    cancel_noticed_ = false;
  }
  bool any_left = false;
  for (const BatchJob& entry : batch_) {
    GenerateJob& job = *entry.job;
    if (!job.is_finished() && job.record().is_cancelled()) {
      const stream::IoCounters& io = active_->weights().counters();
      job.count_sweep(io);
      tell_recorded();
      tell_sweep(entry, io);
      job.finish(engine::FinishReason::kCancelled);
    }
    any_left = any_left || !job.is_finished();
  }
  end_cancelled(running_);  // those without a row in this sweep, too; they stay until it is over
  take_submissions();
  remove_cancelled(waiting_);
  if (!any_left) return Unexpected(ErrorCode::kCancelled, "all jobs of the sweep are cancelled");
  return {};
}

// Asked 50 times a second while a sweep waits for a read.
Status Scheduler::while_waiting() {
  alive();
  give_back();
  return check_cancelled();
}

Status Scheduler::between_tiles() {
  debug_hang_.at_tile();
  alive();
  give_back();
  tell_recorded();
  const stream::IoCounters& io = active_->weights().counters();
  const uint64_t done = io.read_bytes + io.cache_bytes;
  const size_t rows_per_sweep = active_->forward().limits().rows;
  for (const BatchJob& entry : batch_) {
    if (!entry.job->is_prefilling()) continue;
    const uint64_t sweeps_done = entry.job->computed() / rows_per_sweep;
    const uint64_t sweeps_left = (entry.job->pending() + rows_per_sweep - 1) / rows_per_sweep;
    const uint64_t bytes = active_->sweep_bytes();
    entry.job->report_progress(sweeps_done * bytes + done, (sweeps_done + sweeps_left) * bytes);
  }
  return check_cancelled();
}

void Scheduler::begin_recording() {
  stream::Recorder& recorder = active_->weights().recorder();
  const Clock::time_point now = Clock::now();
  bool is_wanted = false;
  for (const BatchJob& entry : batch_) {
    if (entry.job->observer() == nullptr) continue;
    entry.job->observer()->begin_sweep(now, {entry.rows, rows_.size() - entry.rows});
    is_wanted = true;
  }
  if (!is_wanted) {
    if (recorder.is_on()) recorder.turn_off();
    return;
  }
  recorded_sweep_ = sweep_number_;
  recorder.begin_sweep(std::any_of(batch_.begin(), batch_.end(), [this](const BatchJob& entry) {
    return entry.job->user() != batch_.front().job->user();
  }));
}

void Scheduler::tell_recorded() {
  stream::Recorder& recorder = active_->weights().recorder();
  if (!recorder.is_on()) return;
  const stream::Recorder::Taken taken = recorder.take();
  for (const BatchJob& entry : batch_) {
    if (!entry.job->is_finished() && entry.job->observer() != nullptr) {
      entry.job->observer()->add(taken);
    }
  }
}

// What became of the sweep until now.
void Scheduler::tell_sweep(const BatchJob& entry, const stream::IoCounters& io) {
  SweepObserver* const observer = entry.job->observer();
  if (observer == nullptr) return;
  if (const auto stage = active_->weights().recorder().stage_so_far(io)) {
    observer->add({{*stage}, 0});
  }
  observer->end_sweep(io);
}

// Between two sweeps: which of the observed jobs ride the next one.
void Scheduler::ask_who_paces() {
  const std::function<void()> is_alive = [this] { alive(); };
  for (const auto& job : running_) {
    if (job->is_finished() || job->observer() == nullptr || !job->observer()->paces()) continue;
    tell_read_ahead();
    const SweepObserver::Next next = job->observer()->next({*active_, device_->pool(), is_alive});
    job->set_rides_next(next == SweepObserver::Next::kRide);
    if (next == SweepObserver::Next::kEnd) job->finish(engine::FinishReason::kLength);
  }
  remove_finished();
}

// What was read since the last observed sweep, to those who were in it.
void Scheduler::tell_read_ahead() {
  stream::Recorder& recorder = active_->weights().recorder();
  if (!recorder.is_on()) return;
  const stream::Recorder::Taken taken = recorder.take();
  for (const auto& job : running_) {
    const bool was_in_it = job->last_sweep() == recorded_sweep_ && recorded_sweep_ != 0;
    if (was_in_it && !job->is_finished() && job->observer() != nullptr) {
      job->observer()->add(taken);
    }
  }
}

void Scheduler::finish_sweep(const Status& status) {
  const stream::IoCounters io = active_->weights().take_counters();
  active_->weights().recorder().end_sweep(io);
  tell_recorded();
  for (const BatchJob& entry : batch_) {
    if (entry.job->is_finished()) continue;
    entry.job->count_sweep(io);
    tell_sweep(entry, io);
    if (!status && status.error().code != ErrorCode::kCancelled) {
      entry.job->fail(status.error());
    }
  }
  if (!status) {
    if (status.error().code != ErrorCode::kCancelled) {
      log::error("model {}: {}", active_->model()->name(), status.error().message);
    }
    return;
  }
  give_logits();
}

void Scheduler::give_logits() {
  size_t row = 0;
  size_t logit_row = 0;
  for (const BatchJob& entry : batch_) {
    for (size_t i = 0; i < entry.rows; ++i, ++row) {
      if (!rows_[row].wants_logits) continue;
      alive();
      entry.job->take_logits(rows_[row].position, active_->forward().logits(logit_row++));
    }
    if (!entry.job->is_finished()) entry.job->advance(entry.rows);
  }
}

void Scheduler::remove_finished() {
  const Clock::time_point now = Clock::now();
  for (const auto& job : running_) {
    if (job->is_finished()) active_->job_ended(now, job->keep_alive());
  }
  std::erase_if(running_, [](const auto& job) { return job->is_finished(); });
}

void Scheduler::publish_memory() {
  MemoryStatus status;
  status.ram_used_bytes = ram_in_use();
  next_expiry_ = Clock::time_point::max();
  for (const auto& active : models_) {
    next_expiry_ = std::min(next_expiry_, expiry(*active));
    status.kv_used_bytes += active->kv().used_bytes();
    const store::Shard& shard = active->model()->stored.shards.front();
    status.models.push_back({.model = active->model()->ref(),
                             .resident_bytes = active->weights().resident_bytes(),
                             .ram_bytes = active->ram_bytes(),
                             .vram_bytes = active->vram_bytes(),
                             .weight_bytes = active->sweep_bytes(),
                             .streams = active->reads(),
                             .reader = active->weights().reader_name(),
                             .is_direct = shard.file_of(shard.tensors.front()).is_direct(),
                             .locked_bytes = active->slab().locked_bytes(),
                             .has_huge_pages = active->slab().has_huge_pages(),
                             .experts = active->plan().experts.size(),
                             .expert_slots = active->plan().room_for_experts(),
                             .expert_bytes = active->weights().resident_expert_bytes(),
                             .expert_use = active->weights().expert_counters(),
                             .is_in_use = is_wanted(active->model()),
                             .is_kept = is_kept(active->model()->ref()),
                             .keep_alive = keep_alive_of(*active),
                             .idle_since = active->idle_since()});
  }
  publish_received(status);
  status.ram_budget_bytes = ram_budget_bytes_;
  if (const stream::Arena* arena = device_->arena()) {
    status.vram_used_bytes = arena->used_bytes();
    status.vram_peak_bytes = arena->peak_bytes();
  }
  const std::lock_guard lock(mutex_);
  status.budget_reason = budget_reason_;
  memory_ = std::move(status);
}

}  // namespace airllm::schedule

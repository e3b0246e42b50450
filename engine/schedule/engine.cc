// The Engine: a store, a scheduler, a thread that prepares prompts, and a thread for each other
// job.

#include "engine/engine.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "base/units.h"
#include "base/users.h"
#include "engine/schedule/bench_job.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/generate_job.h"
#include "engine/schedule/job_limits.h"
#include "engine/schedule/kernel_bench.h"
#include "engine/schedule/loaded_model.h"
#include "engine/schedule/memory_pressure.h"
#include "engine/schedule/received_weights.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/serial_worker.h"
#include "engine/schedule/text_job.h"
#include "engine/store/load_marks.h"
#include "engine/store/store.h"
#include "engine/stream/simulated_device.h"
#include "kernels/backend.h"

namespace airllm::engine {

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kStopString: return "stop_string";
    case FinishReason::kLength: return "length";
    case FinishReason::kContext: return "context";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "?";
}

namespace {

using schedule::GenerateJob;
using schedule::JobRecord;
using schedule::LoadedModel;
using schedule::SerialWorker;

// The jobs there are, by number. Thread-safe.
class JobTable {
 public:
  explicit JobTable(const EngineOptions& options) : load_(options) {}

  Result<std::shared_ptr<JobRecord>> add(const std::string& kind, uid_t user, const ModelRef& model,
                                         uint64_t prompt_bytes) {
    const std::lock_guard lock(mutex_);
    if (closed_) {
      return Unexpected(stopping_error());
    }
    AIRLLM_TRY_VOID(load_.take(next_, user, prompt_bytes));
    auto record = std::make_shared<JobRecord>(next_++, kind, user, model);
    records_.emplace(record->id(), record);
    return record;
  }

  void remove(JobId id) {
    const std::lock_guard lock(mutex_);
    records_.erase(id);
    load_.release(id);
  }

  std::shared_ptr<JobRecord> find(JobId id) const {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(id);
    return found == records_.end() ? nullptr : found->second;
  }

  // A split makes the model and uses none; the store keeps two from making the same one.
  Status check_unused(const ModelRef& model) const {
    const std::lock_guard lock(mutex_);
    const bool is_used = std::any_of(records_.begin(), records_.end(), [&](const auto& entry) {
      return entry.second->model() == model && entry.second->kind() != "split" &&
             entry.second->kind() != "stop";
    });
    if (!is_used) return {};
    return schedule::model_in_use(model.name);
  }

  // Whether no job needs the model's weights in memory; else who they are.
  Status check_idle(const ModelRef& model) const {
    std::string users;
    for (const JobInfo& info : infos()) {
      if (info.model != model || !uses_weights(info)) continue;
      users += (users.empty() ? "job " : ", job ") + std::to_string(info.job) + " of user " +
               user_name(info.user);
    }
    if (users.empty()) return {};
    return schedule::model_in_use(model.name, " by " + users);
  }

  std::vector<JobInfo> infos() const {
    const std::lock_guard lock(mutex_);
    std::vector<JobInfo> out;
    for (const auto& [id, record] : records_) out.push_back(record->info());
    return out;
  }

  // Jobs beside `except` that do not just wait.
  uint64_t count_at_work(const JobRecord& except) const {
    const std::vector<JobInfo> all = infos();
    return static_cast<uint64_t>(std::count_if(all.begin(), all.end(), [&](const JobInfo& info) {
      return info.job != except.id() && info.state != "queued";
    }));
  }

  size_t count_store_jobs() const {
    const std::vector<JobInfo> all = infos();
    return static_cast<size_t>(std::count_if(all.begin(), all.end(), is_store_job));
  }

  void set_limits(const EngineOptions& options) {
    const std::lock_guard lock(mutex_);
    load_.set_limits(options);
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  void cancel_all() {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, record] : records_) record->request_cancel();
  }

 private:
  mutable std::mutex mutex_;
  schedule::JobLoad load_;
  std::map<JobId, std::shared_ptr<JobRecord>> records_;
  JobId next_ = 1;
  bool closed_ = false;
};

// Forwards a job's events, and takes the job off the table before its last one, so that whoever
// sees the end no longer sees the job.
class TableEvents : public JobEvents {
 public:
  TableEvents(std::shared_ptr<JobTable> table, JobId id, std::shared_ptr<JobEvents> next)
      : table_(std::move(table)), id_(id), next_(std::move(next)) {}

  void on_accepted(const GenerateAccepted& event) override { next_->on_accepted(event); }
  void on_progress(const Progress& event) override { next_->on_progress(event); }
  void on_prompt_logprobs(uint64_t position, std::span<const TokenLogprob> logprobs) override {
    next_->on_prompt_logprobs(position, logprobs);
  }
  void on_token(const GeneratedToken& event) override { next_->on_token(event); }
  void on_profile(std::span<const ProfileEvent> events, uint64_t lost) override {
    next_->on_profile(events, lost);
  }
  void on_tokens(std::span<const int32_t> ids, std::span<const std::string> pieces) override {
    next_->on_tokens(ids, pieces);
  }
  void on_text(std::string_view text) override { next_->on_text(text); }
  void on_generated(const GenerateResult& event) override {
    table_->remove(id_);
    next_->on_generated(event);
  }
  void on_done(const Json& result) override {
    table_->remove(id_);
    next_->on_done(result);
  }
  uint64_t room_bytes() const override { return next_->room_bytes(); }
  void on_error(const Error& error) override {
    table_->remove(id_);
    next_->on_error(error);
  }

 private:
  std::shared_ptr<JobTable> table_;
  JobId id_;
  std::shared_ptr<JobEvents> next_;
};

// Models whose tokenizers and headers are in memory. One that is released stays as long as jobs use
// it, and is found again so long, so that a model is never in memory twice. Thread-safe.
class ModelCache {
 public:
  using Loaded = std::shared_ptr<const LoadedModel>;
  // What becomes of a model that is to be loaded anew.
  using Forget = std::function<void(const ModelRef&, Loaded)>;

  ModelCache(store::Store& store, store::LoadMarks& marks, Forget forget)
      : store_(store), marks_(marks), forget_(std::move(forget)) {}

  // Opens files that a user named, and so may take for ever, when is_in_place().
  bool is_in_place(const ModelRef& ref) {
    if (const Loaded model = peek(ref)) return model->stored.in_place.has_value();
    return store_.is_in_place(ref);
  }

  // With its weights. `owner_files` may be null, and is asked when this process may not open what
  // is read in place.
  Result<Loaded> get(const ModelRef& ref, engine::OwnerFiles* owner_files) {
    if (is_in_place(ref)) return get_in_place(ref, owner_files);
    if (Loaded model = peek(ref)) return model;
    const std::lock_guard loading(loading_);  // one who waited finds what the other loaded
    if (Loaded model = peek(ref)) return model;
    AIRLLM_TRY(Loaded model, load_marked(ref, {}));
    return keep(ref, std::move(model));
  }

  // For its texts alone: what is read in place is not opened.
  Result<Loaded> get_texts(const ModelRef& ref) {
    if (Loaded model = peek(ref)) return model;
    if (!store_.is_in_place(ref)) return get(ref, nullptr);
    return load_marked(ref, {.weights = false, .owner_files = nullptr});
  }

  // The model if it is in memory; it then stays there.
  std::shared_ptr<const LoadedModel> peek(const ModelRef& ref) {
    const std::lock_guard lock(mutex_);
    const auto found = models_.find(ref);
    if (found == models_.end()) return nullptr;
    found->second.kept = found->second.known.lock();
    return found->second.kept;
  }

  void release(const ModelRef& ref) {
    const std::lock_guard lock(mutex_);
    const auto found = models_.find(ref);
    if (found != models_.end()) found->second.kept.reset();
  }

  std::shared_ptr<const LoadedModel> take(const ModelRef& ref) {
    const std::lock_guard lock(mutex_);
    const auto found = models_.find(ref);
    if (found == models_.end()) return nullptr;
    std::shared_ptr<const LoadedModel> model = found->second.known.lock();
    models_.erase(found);
    return model;
  }

 private:
  struct Entry {
    std::shared_ptr<const LoadedModel> kept;
    std::weak_ptr<const LoadedModel> known;
  };

  // Nobody waits for one whose files are waited for: of two who load, the later takes the other's.
  Result<Loaded> get_in_place(const ModelRef& ref, engine::OwnerFiles* owner_files) {
    drop_changed(ref);
    if (Loaded model = peek(ref)) return model;
    AIRLLM_TRY(Loaded model, load_marked(ref, {.weights = true, .owner_files = owner_files}));
    return keep(ref, std::move(model));
  }

  // What is read in place is checked each time it is asked for.
  void drop_changed(const ModelRef& ref) {
    const Loaded model = peek(ref);
    if (!model || store_.check_originals(model->stored)) return;
    if (Loaded stale = take(ref)) forget_(ref, std::move(stale));
  }

  Loaded keep(const ModelRef& ref, Loaded model) {
    const std::lock_guard lock(mutex_);
    Entry& entry = models_[ref];
    if (const Loaded known = entry.known.lock()) return entry.kept = known;
    entry = {model, model};
    return model;
  }

  Result<Loaded> load_marked(const ModelRef& ref, const store::OpenOptions& options) {
    const std::string place = store_.place(ref);
    AIRLLM_TRY_VOID(marks_.check(place, ref.name));
    marks_.begin(place);
    Result<Loaded> model = load(ref, options);
    marks_.end(place);
    return model;
  }

  Result<Loaded> load(const ModelRef& ref, const store::OpenOptions& options) {
    AIRLLM_TRY(store::StoredModel stored, store_.open_model(ref, options));
    return LoadedModel::load(std::move(stored));
  }

  store::Store& store_;
  store::LoadMarks& marks_;
  const Forget forget_;
  std::mutex loading_;  // taken before mutex_
  std::mutex mutex_;
  std::map<ModelRef, Entry> models_;
};

class EngineImpl : public Engine {
 public:
  EngineImpl(std::unique_ptr<store::Store> store, std::unique_ptr<store::LoadMarks> marks,
             std::unique_ptr<stream::Device> device, const EngineOptions& options,
             const schedule::SchedulerOptions& budgets,
             std::vector<schedule::LastingWeights> received)
      : max_splits_(options.max_splits),
        max_logprobs_(options.max_logprobs),
        budgets_(budgets),
        backend_(device->backend()),
        device_name_(device->name()),
        vram_bytes_(options.device == DeviceKind::kCpu ? std::optional<uint64_t>()
                                                       : options.vram_bytes),
        reader_name_(stream::usable_reader(budgets.reader)),
        threads_(device->pool().threads()),
        store_(std::move(store)),
        marks_(std::move(marks)),
        table_(std::make_shared<JobTable>(options)),
        models_(*store_, *marks_,
                [this](const ModelRef& ref, std::shared_ptr<const LoadedModel> model) {
                  scheduler_.forget(ref, std::move(model));
                }),
        scheduler_(std::move(device), *marks_, with_expiry(budgets, models_), std::move(received)) {
    text_jobs_.pause_timeout = options.pause_timeout;
    pressure_.emplace(budgets_.ram_bytes, [this](uint64_t bytes, const std::string& reason) {
      log::warning("RAM budget: {} of {} from now on: {}", format_size(bytes),
                   format_size(budgets_.ram_bytes), reason);
      scheduler_.set_ram_budget(bytes, reason);
    });
  }

  ~EngineImpl() override {
    // First, since a read that hangs may keep the rest from ever being reached.
    marks_->close();
    table_->close();
    table_->cancel_all();
    scheduler_.notice_cancel();
  }

  Result<JobId> generate(GenerateRequest request, std::shared_ptr<JobEvents> events) override {
    AIRLLM_TRY(
        std::shared_ptr<JobRecord> record,
        table_->add("generate", request.user, request.model, schedule::prompt_bytes(request)));
    const JobId id = record->id();
    auto wrapped = std::make_shared<TableEvents>(table_, id, std::move(events));
    preparer_.post([this, record = std::move(record), request = std::move(request),
                    wrapped = std::move(wrapped)] {
      if (!models_.is_in_place(request.model)) return prepare(record, request, wrapped);
      // On a thread of its own, so that files of a user's keep nobody else waiting.
      const std::lock_guard lock(workers_mutex_);
      add_worker(record, [this, record, request, wrapped] { prepare(record, request, wrapped); });
    });
    return id;
  }

  Result<JobId> run_text(TextRequest request, std::shared_ptr<JobEvents> events) override {
    const uint64_t bytes = schedule::input_bytes(request);
    const JobOf job{kind_of(request), request.user, request.model};
    const std::lock_guard lock(workers_mutex_);
    return start_worker(job, bytes, std::move(events),
                        [this, request = std::move(request)](
                            JobEvents& out, const std::shared_ptr<JobRecord>& record) {
                          return run_text_job(request, out, *record);
                        });
  }

  Result<JobId> split(SplitRequest request, std::shared_ptr<JobEvents> events) override {
    const ModelRef model(request.name, request.owner);
    const uid_t user = request.owner.value_or(::geteuid());
    return start_store_job({"split", user, model}, std::move(events),
                           [this, request = std::move(request)](const store::ProgressFn& progress,
                                                                std::stop_token stop) {
                             Result<Json> made =
                                 split_and_share(request, progress, std::move(stop));
                             if (made && !request.only_plan) forget_crashes(request, *made);
                             return made;
                           });
  }

  Result<JobId> verify(const ModelRef& model, uid_t user, std::shared_ptr<JobEvents> events,
                       std::shared_ptr<OwnerFiles> owner_files) override {
    return start_store_job(
        {"verify", user, model}, std::move(events),
        [this, model, owner_files](const store::ProgressFn& progress, std::stop_token stop) {
          Result<Json> sound = store_->verify(model, progress, std::move(stop),
                                              {.weights = true, .owner_files = owner_files.get()});
          if (sound) marks_->clear(store_->place(model));
          return sound;
        });
  }

  Result<JobId> stop(const ModelRef& model, uid_t user,
                     std::shared_ptr<JobEvents> events) override {
    AIRLLM_TRY_VOID(table_->check_idle(model));
    AIRLLM_TRY(std::shared_ptr<JobRecord> record, table_->add("stop", user, model, 0));
    const JobId id = record->id();
    auto wrapped = std::make_shared<TableEvents>(table_, id, std::move(events));
    scheduler_.release(model, models_.peek(model), [this, model, wrapped](auto freed_bytes) {
      if (!freed_bytes) return wrapped->on_error(freed_bytes.error());
      models_.release(model);
      wrapped->on_done(Json{{"name", model.name},
                            {"was_in_memory", freed_bytes->has_value()},
                            {"freed_bytes", freed_bytes->value_or(0)}});
    });
    return id;
  }

  Result<JobId> measure_disk(uid_t user, std::shared_ptr<JobEvents> events) override {
    return start_store_job({"measure", user, ModelRef()}, std::move(events),
                           [this](const store::ProgressFn&, std::stop_token stop) -> Result<Json> {
                             AIRLLM_TRY(const store::ReadSpeed speed,
                                        store_->measure_read_speed(std::move(stop)));
                             return Json{{"path", speed.path},
                                         {"bytes", speed.bytes},
                                         {"seconds", speed.seconds},
                                         {"direct", speed.direct}};
                           });
  }

  Result<JobId> bench_stream(BenchRequest request, std::shared_ptr<JobEvents> events) override {
    const JobOf job{"bench", request.user, request.model};
    return start_store_worker(job, std::move(events),
                              [this, request = std::move(request)](
                                  JobEvents& out, const std::shared_ptr<JobRecord>& record) {
                                return run_bench(request, out, record);
                              });
  }

  Result<JobId> bench_kernels(KernelBenchRequest request,
                              std::shared_ptr<JobEvents> events) override {
    if (backend_.burn == nullptr) {
      return Unexpected(ErrorCode::kUnavailable, "the operations of this device are not measured",
                        "start the daemon with --device cpu");
    }
    return start_store_worker(
        {"bench", request.user, ModelRef()}, std::move(events),
        [this, request](JobEvents& out, const std::shared_ptr<JobRecord>& record) {
          return schedule::run_bench_kernels(backend_, request, bench_tools(record), out, record);
        });
  }

  Status cancel(JobId job) override {
    const std::shared_ptr<JobRecord> record = table_->find(job);
    if (record == nullptr) {
      return Unexpected(ErrorCode::kNoInput, "there is no job " + std::to_string(job),
                        "airllm ps lists the jobs");
    }
    record->request_cancel();
    scheduler_.notice_cancel();
    return {};
  }

  Result<FoundModel> find(const std::string& name, const Viewer& viewer, bool unfinished) override {
    return store_->find(name, viewer, unfinished);
  }
  Result<Json> list(const Viewer& viewer) override;
  Result<Json> show(const ModelRef& model) override { return store_->show(model); }

  Status remove(const ModelRef& model) override {
    AIRLLM_TRY_VOID(let_go(model));
    AIRLLM_TRY_VOID(store_->remove(model));
    marks_->clear(store_->place(model));
    return {};
  }
  // The model is loaded anew when it is asked next: whom it belongs to is part of what is loaded.
  Status share(const ModelRef& model) override {
    if (!model.holder) return store_->share(model);
    AIRLLM_TRY_VOID(let_go(model));
    AIRLLM_TRY_VOID(store_->share(model));
    marks_->move(store_->place(model), store_->place(model.name));
    return {};
  }

  std::vector<JobInfo> jobs() override { return table_->infos(); }
  Json status(const Viewer& viewer) override;
  void close_admission() override { table_->close(); }
  void apply(const EngineOptions& options) override {
    table_->set_limits(options);
    store_->set_quota(options.store_quota_bytes);
    max_splits_ = options.max_splits;
    max_logprobs_ = options.max_logprobs;
    scheduler_.set_timeouts(options.read_timeout, options.pause_timeout);
    scheduler_.set_keeping(options.keep_alive, options.keep);
    text_jobs_.pause_timeout = options.pause_timeout;
  }

 private:
  // What a model is beside its weights goes with them.
  static schedule::SchedulerOptions with_expiry(schedule::SchedulerOptions options,
                                                ModelCache& models) {
    options.on_expired = [&models](const ModelRef& ref) { models.release(ref); };
    return options;
  }

  struct JobOf {
    std::string kind;
    uid_t user;
    ModelRef model;
  };
  using StoreTask = std::function<Result<Json>(const store::ProgressFn&, std::stop_token)>;
  using Task = std::function<Result<Json>(JobEvents&, const std::shared_ptr<JobRecord>&)>;

  void prepare(const std::shared_ptr<JobRecord>& record, const GenerateRequest& request,
               const std::shared_ptr<JobEvents>& events);
  Result<JobId> start_store_job(const JobOf& job, std::shared_ptr<JobEvents> events,
                                StoreTask task);
  // Within max-splits.
  Result<JobId> start_store_worker(const JobOf& job, std::shared_ptr<JobEvents> events, Task task);
  // With workers_mutex_ held: runs the task on a thread of its own.
  Result<JobId> start_worker(const JobOf& job, uint64_t prompt_bytes,
                             std::shared_ptr<JobEvents> events, Task task);
  // With workers_mutex_ held.
  void add_worker(std::shared_ptr<JobRecord> record, std::function<void()> work);
  Result<Json> run_text_job(const TextRequest& request, JobEvents& events, JobRecord& record);
  Result<Json> run_bench(const BenchRequest& request, JobEvents& events,
                         const std::shared_ptr<JobRecord>& record);
  schedule::BenchTools bench_tools(const std::shared_ptr<JobRecord>& record);
  Result<Json> split_and_share(const SplitRequest& request, const store::ProgressFn& progress,
                               std::stop_token stop);
  void forget_crashes(const SplitRequest& request, const Json& made);
  Status let_go(const ModelRef& model);
  static Result<Json> run_store_job(const StoreTask& task, JobEvents& events, JobRecord& record);

  std::atomic<uint64_t> max_splits_, max_logprobs_;
  const schedule::SchedulerOptions budgets_;
  const kernels::Backend& backend_;
  const std::string device_name_;
  const std::optional<uint64_t> vram_bytes_;  // of a device with memory of its own
  const std::string reader_name_;
  const unsigned threads_;
  const std::unique_ptr<store::Store> store_;
  const std::unique_ptr<store::LoadMarks> marks_;
  const std::shared_ptr<JobTable> table_;
  ModelCache models_;
  schedule::Scheduler scheduler_;
  schedule::TextJobs text_jobs_;
  schedule::BenchTurns bench_turns_;
  std::optional<schedule::PressureWatch> pressure_;

  struct Worker {
    std::shared_ptr<JobRecord> record;
    std::jthread thread;
  };
  std::mutex workers_mutex_;
  std::vector<Worker> workers_;
  SerialWorker preparer_;  // last: it uses all the others
};

void EngineImpl::prepare(const std::shared_ptr<JobRecord>& record, const GenerateRequest& request,
                         const std::shared_ptr<JobEvents>& events) {
  Result<std::shared_ptr<const LoadedModel>> model =
      models_.get(request.model, request.owner_files.get());
  if (!model) return events->on_error(model.error());
  Result<std::vector<int32_t>> prompt = (*model)->encode_prompt(request);
  if (!prompt) return events->on_error(prompt.error());
  const uint64_t logprobs = std::min(request.prompt_logprobs, (*model)->architecture().vocabulary);
  if (auto status = schedule::check_prompt_logprobs(prompt->size(), logprobs, max_logprobs_);
      !status) {
    return events->on_error(status.error());
  }
  auto job = std::make_unique<GenerateJob>(record, *model, request, std::move(*prompt), events);
  job->accept();
  scheduler_.submit(std::move(job));
  if (record->is_cancelled()) scheduler_.notice_cancel();
}

// Gives back what is in memory of a model that goes elsewhere, unless a job uses it.
Status EngineImpl::let_go(const ModelRef& model) {
  AIRLLM_TRY_VOID(table_->check_unused(model));
  scheduler_.forget(model, models_.take(model));
  return {};
}

Result<Json> EngineImpl::split_and_share(const SplitRequest& request,
                                         const store::ProgressFn& progress, std::stop_token stop) {
  AIRLLM_TRY(Json made, store_->split(request, progress, std::move(stop)));
  if (request.only_plan || !request.share || made["shared"] == true) return made;
  if (Status shared = share({request.name, request.owner}); !shared) {
    Error error = std::move(shared).error();
    error.message = "the model is made, but cannot be shared yet: " + error.message;
    error.remedy += (error.remedy.empty() ? "" : "; ") + ("then: airllm share " + request.name);
    return Unexpected(std::move(error));
  }
  made["shared"] = true;
  return made;
}

// Of a model that a split has made anew.
void EngineImpl::forget_crashes(const SplitRequest& request, const Json& made) {
  if (made["unchanged"] == true) return;
  const bool is_shared = made["shared"] == true;
  marks_->clear(store_->place({request.name, is_shared ? std::nullopt : request.owner}));
}

Result<JobId> EngineImpl::start_store_job(const JobOf& job, std::shared_ptr<JobEvents> events,
                                          StoreTask task) {
  return start_store_worker(
      job, std::move(events),
      [task = std::move(task)](JobEvents& out, const std::shared_ptr<JobRecord>& record) {
        return run_store_job(task, out, *record);
      });
}

Result<JobId> EngineImpl::start_store_worker(const JobOf& job, std::shared_ptr<JobEvents> events,
                                             Task task) {
  const std::lock_guard lock(workers_mutex_);
  if (table_->count_store_jobs() >= max_splits_) {
    return Unexpected(
        ErrorCode::kTemporary,
        std::to_string(max_splits_.load()) +
            " splits, verifications and benches run already, as many as max-splits allows",
        "try again when one of them is done (airllm ps), or raise max-splits in the "
        "daemon's settings");
  }
  return start_worker(job, 0, std::move(events), std::move(task));
}

Result<JobId> EngineImpl::start_worker(const JobOf& job, uint64_t prompt_bytes,
                                       std::shared_ptr<JobEvents> events, Task task) {
  AIRLLM_TRY(std::shared_ptr<JobRecord> record,
             table_->add(job.kind, job.user, job.model, prompt_bytes));
  const JobId id = record->id();
  auto wrapped = std::make_shared<TableEvents>(table_, id, std::move(events));
  add_worker(record, [record, wrapped = std::move(wrapped), task = std::move(task)] {
    record->update([](JobInfo& info) { info.state = "running"; });
    Result<Json> result = task(*wrapped, record);
    if (result) {
      wrapped->on_done(*result);
    } else {
      wrapped->on_error(result.error());
    }
  });
  return id;
}

void EngineImpl::add_worker(std::shared_ptr<JobRecord> record, std::function<void()> work) {
  // Threads of jobs that have left the table are over or about to be.
  std::erase_if(workers_,
                [this](const Worker& worker) { return !table_->find(worker.record->id()); });
  workers_.push_back({std::move(record), std::jthread(std::move(work))});
}

Result<Json> EngineImpl::run_store_job(const StoreTask& task, JobEvents& events,
                                       JobRecord& record) {
  const auto progress = [&](const Progress& step) {
    record.update([&](JobInfo& info) {
      info.done = step.done;
      info.total = step.total;
      info.unit = step.unit;
    });
    events.on_progress(step);
  };
  return task(progress, record.stop_token());
}

Result<Json> EngineImpl::run_text_job(const TextRequest& request, JobEvents& events,
                                      JobRecord& record) {
  AIRLLM_TRY(const std::shared_ptr<const LoadedModel> model, models_.get_texts(request.model));
  return schedule::run_text_job(*model, request, text_jobs_, events, record.stop_token());
}

Result<Json> EngineImpl::run_bench(const BenchRequest& request, JobEvents& events,
                                   const std::shared_ptr<JobRecord>& record) {
  AIRLLM_TRY(std::shared_ptr<const LoadedModel> model,
             models_.get(request.model, request.owner_files.get()));
  return schedule::run_bench_stream(std::move(model), request, bench_tools(record), events, record);
}

// Valid as long as `record` is.
schedule::BenchTools EngineImpl::bench_tools(const std::shared_ptr<JobRecord>& record) {
  const auto submit = [this, &record](std::unique_ptr<GenerateJob> job) {
    scheduler_.submit(std::move(job));
    if (record->is_cancelled()) scheduler_.notice_cancel();
  };
  const auto count_other_jobs = [this, &record] { return table_->count_at_work(*record); };
  return {bench_turns_, submit, count_other_jobs, budgets_.reader, scheduler_.read_timeout(),
          threads_};
}

Result<Json> EngineImpl::list(const Viewer& viewer) {
  AIRLLM_TRY(const std::vector<store::ModelSummary> models, store_->list(viewer));
  Json out = Json::array();
  for (const store::ModelSummary& model : models) {
    Json row = {{"name", model.model.name},
                {"complete", model.complete},
                {"bundled", model.bundled},
                {"owner", user_name(model.owner)},
                {"shared", !model.model.holder},
                {"bytes", model.bytes},
                {"elsewhere_bytes", model.bytes_elsewhere},
                {"in_place", model.in_place ? Json(*model.in_place) : Json()},
                {"parameters", model.parameters},
                {"family", model.family},
                {"dtype", model.dtype},
                {"layers", model.layers},
                {"created", model.created},
                {"source", model.source}};
    if (!model.problem.empty()) row["problem"] = model.problem;
    out.push_back(std::move(row));
  }
  return out;
}

// How long the model keeps its memory if nobody asks it: null for ever.
Json expires_seconds(const schedule::ModelMemory& model) {
  if (model.is_kept || model.keep_alive == kForever) return nullptr;
  const schedule::Clock::time_point now = schedule::Clock::now();
  const auto idle = model.is_in_use ? schedule::Clock::duration(0) : now - model.idle_since;
  return std::max(0.0, std::chrono::duration<double>(model.keep_alive - idle).count());
}

// Of a model with experts; null for others.
Json expert_status(const schedule::ModelMemory& model) {
  if (model.experts == 0) return nullptr;
  return {{"count", model.experts},
          {"slots", model.expert_slots},
          {"resident_bytes", model.expert_bytes},
          {"hits", model.expert_use.hits},
          {"misses", model.expert_use.misses},
          {"read_bytes", model.expert_use.read_bytes},
          {"saved_bytes", model.expert_use.saved_bytes}};
}

Json EngineImpl::status(const Viewer& viewer) {
  const schedule::MemoryStatus memory = scheduler_.memory();
  const auto vram = [&](uint64_t bytes) { return vram_bytes_ ? Json(bytes) : Json(); };
  Json models = Json::array();
  for (const schedule::ModelMemory& model : memory.models) {
    if (!viewer.sees(model.model)) continue;
    models.push_back({{"name", model.model.name},
                      {"resident_bytes", model.resident_bytes},
                      {"ram_bytes", model.ram_bytes},
                      {"vram_bytes", vram(model.vram_bytes)},
                      {"received", model.is_received},
                      {"bytes", model.weight_bytes},
                      {"streams", model.streams},
                      {"reader", model.is_received ? Json() : Json(model.reader)},
                      {"direct", model.is_received ? Json() : Json(model.is_direct)},
                      {"locked_bytes", model.locked_bytes},
                      {"huge_pages", model.has_huge_pages},
                      {"experts", expert_status(model)},
                      {"in_use", model.is_in_use},
                      {"kept", model.is_kept},
                      {"expires_seconds", expires_seconds(model)}});
  }
  return {{"device", device_name_},
          {"cpu", backend_.name},
          {"cpu_reason", kernels::backend_reason(backend_.name)},
          {"threads", threads_},
          {"reader", reader_name_},
          {"ram_bytes", budgets_.ram_bytes},
          {"ram_used_bytes", memory.ram_used_bytes},
          {"ram_budget_bytes", memory.ram_budget_bytes},
          {"ram_budget_reason", memory.budget_reason},
          {"kv_bytes", budgets_.kv_bytes},
          {"kv_used_bytes", memory.kv_used_bytes},
          {"vram_bytes", vram(vram_bytes_.value_or(0))},
          {"vram_used_bytes", vram(memory.vram_used_bytes)},
          {"vram_peak_bytes", vram(memory.vram_peak_bytes)},
          {"models", std::move(models)}};
}

store::Disk& weights_disk(const EngineOptions& options) {
  return options.direct_io ? store::system_disk() : store::buffered_disk();
}

stream::ReaderKind reader_kind(WeightReader reader) {
  switch (reader) {
    case WeightReader::kAuto: return stream::ReaderKind::kAuto;
    case WeightReader::kUring: return stream::ReaderKind::kUring;
    case WeightReader::kThreads: return stream::ReaderKind::kThreads;
  }
  return stream::ReaderKind::kAuto;
}

std::unique_ptr<stream::Device> make_device(const EngineOptions& options,
                                            const kernels::Backend& backend, unsigned threads) {
  switch (options.device) {
    case DeviceKind::kCpu: break;
    case DeviceKind::kSimulated:
      return stream::make_simulated_device(backend, threads,
                                           {.arena_bytes = options.vram_bytes,
                                            .bus_bytes_per_second = options.bus_bytes_per_second,
                                            .is_guarded = options.guards_device});
  }
  return stream::make_cpu_device(backend, threads);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  AIRLLM_TRY(const kernels::Backend* const backend, kernels::choose_backend());
  AIRLLM_TRY(std::unique_ptr<store::Store> store,
             store::Store::open(options.store_dir, weights_disk(options), options.store_quota_bytes,
                                options.on_opening));
  std::unique_ptr<store::LoadMarks> marks =
      store::LoadMarks::open(store::system_disk(), options.store_dir + "/loading.json");
  schedule::ReceivedWeights received(options.memory_store, *store);
  schedule::SchedulerOptions budgets;
  budgets.memory_store = options.memory_store;
  budgets.defaults = schedule::default_budgets(schedule::free_memory(received.allocated_bytes()),
                                               received.former_budgets());
  budgets.ram_bytes = options.ram_bytes.value_or(budgets.defaults.ram_bytes);
  budgets.kv_bytes = options.kv_bytes.value_or(budgets.defaults.kv_bytes);
  received.fit(budgets.ram_bytes);
  budgets.reader = reader_kind(options.reader);
  budgets.pause_timeout = options.pause_timeout;
  budgets.kv_per_user_bytes = options.kv_per_user_bytes.value_or(budgets.kv_bytes);
  budgets.read_timeout = options.read_timeout;
  budgets.on_alive = options.on_alive;
  budgets.alive_interval = options.alive_interval;
  budgets.debug_hang = options.debug_hang;
  budgets.keep_alive = options.keep_alive;
  budgets.keep = options.keep;
  const unsigned threads = options.threads > 0 ? options.threads : schedule::available_cores();
  log::info("store {}, {} kernels, {} threads, ram {}, kv {}", options.store_dir, backend->name,
            threads, format_size(budgets.ram_bytes), format_size(budgets.kv_bytes));
  return std::unique_ptr<Engine>(std::make_unique<EngineImpl>(
      std::move(store), std::move(marks), make_device(options, *backend, threads), options, budgets,
      received.take()));
}

}  // namespace airllm::engine

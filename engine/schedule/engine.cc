// The Engine: a store, a scheduler, a thread that prepares prompts, and a thread per split or
// verification.

#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/units.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/generate_job.h"
#include "engine/schedule/loaded_model.h"
#include "engine/schedule/scheduler.h"
#include "engine/store/store.h"
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

// Splits and verifications at a time; each has a thread and buffers.
constexpr size_t kMostStoreJobs = 4;

// The jobs there are, by number. Thread-safe.
class JobTable {
 public:
  explicit JobTable(uint64_t most) : most_(most) {}

  Result<std::shared_ptr<JobRecord>> add(const std::string& kind, const std::string& model) {
    const std::lock_guard lock(mutex_);
    if (closed_) {
      return Unexpected(ErrorCode::kUnavailable, "the daemon is stopping", "ask again later");
    }
    if (records_.size() >= most_) {
      return Unexpected(
          ErrorCode::kTemporary,
          "there are " + std::to_string(records_.size()) + " jobs, as many as max-jobs allows",
          "try again later, or raise max-jobs in the daemon's settings");
    }
    auto record = std::make_shared<JobRecord>(next_++, kind, model);
    records_.emplace(record->id(), record);
    return record;
  }

  void remove(JobId id) {
    const std::lock_guard lock(mutex_);
    records_.erase(id);
  }

  std::shared_ptr<JobRecord> find(JobId id) const {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(id);
    return found == records_.end() ? nullptr : found->second;
  }

  bool uses(const std::string& model) const {
    const std::lock_guard lock(mutex_);
    return std::any_of(records_.begin(), records_.end(),
                       [&](const auto& entry) { return entry.second->model() == model; });
  }

  std::vector<JobInfo> infos() const {
    const std::lock_guard lock(mutex_);
    std::vector<JobInfo> out;
    for (const auto& [id, record] : records_) out.push_back(record->info());
    return out;
  }

  size_t count_store_jobs() const {
    const std::vector<JobInfo> all = infos();
    return static_cast<size_t>(std::count_if(
        all.begin(), all.end(), [](const JobInfo& info) { return info.kind != "generate"; }));
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
  const uint64_t most_;
  mutable std::mutex mutex_;
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
  void on_generated(const GenerateResult& event) override {
    table_->remove(id_);
    next_->on_generated(event);
  }
  void on_done(const Json& result) override {
    table_->remove(id_);
    next_->on_done(result);
  }
  void on_error(const Error& error) override {
    table_->remove(id_);
    next_->on_error(error);
  }

 private:
  std::shared_ptr<JobTable> table_;
  JobId id_;
  std::shared_ptr<JobEvents> next_;
};

// Models whose tokenizers and headers are in memory, by name. Thread-safe.
class ModelCache {
 public:
  explicit ModelCache(store::Store& store) : store_(store) {}

  Result<std::shared_ptr<const LoadedModel>> get(const std::string& name) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = models_.find(name); found != models_.end()) return found->second;
    }
    AIRLLM_TRY(store::StoredModel stored, store_.open_model(name));
    AIRLLM_TRY(std::shared_ptr<const LoadedModel> model, LoadedModel::load(std::move(stored)));
    const std::lock_guard lock(mutex_);
    models_[name] = model;
    return model;
  }

  std::shared_ptr<const LoadedModel> take(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto found = models_.find(name);
    if (found == models_.end()) return nullptr;
    std::shared_ptr<const LoadedModel> model = std::move(found->second);
    models_.erase(found);
    return model;
  }

 private:
  store::Store& store_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const LoadedModel>> models_;
};

// Runs tasks one after the other on a thread of its own.
class SerialWorker {
 public:
  SerialWorker() : thread_([this](const std::stop_token& stop) { loop(stop); }) {}
  // Tasks that have not begun are run, so that every job gets its end.
  ~SerialWorker() { thread_.request_stop(); }

  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }

 private:
  void loop(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !tasks_.empty(); })) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  std::jthread thread_;
};

class EngineImpl : public Engine {
 public:
  EngineImpl(std::unique_ptr<store::Store> store, std::unique_ptr<stream::Device> device,
             const EngineOptions& options, const schedule::SchedulerOptions& budgets)
      : options_(options),
        budgets_(budgets),
        cpu_(device->backend().name),
        device_name_(device->name()),
        threads_(device->pool().threads()),
        store_(std::move(store)),
        table_(std::make_shared<JobTable>(options.max_jobs)),
        models_(*store_),
        scheduler_(std::move(device), budgets) {}

  ~EngineImpl() override {
    table_->close();
    table_->cancel_all();
    scheduler_.notice_cancel();
  }

  Result<JobId> generate(GenerateRequest request, std::shared_ptr<JobEvents> events) override {
    AIRLLM_TRY(std::shared_ptr<JobRecord> record, table_->add("generate", request.model));
    const JobId id = record->id();
    auto wrapped = std::make_shared<TableEvents>(table_, id, std::move(events));
    preparer_.post([this, record = std::move(record), request = std::move(request),
                    wrapped = std::move(wrapped)] { prepare(record, request, wrapped); });
    return id;
  }

  Result<JobId> split(SplitRequest request, std::shared_ptr<JobEvents> events) override {
    const std::string name = request.name;
    return start_store_job("split", name, std::move(events),
                           [this, request = std::move(request)](const store::ProgressFn& progress,
                                                                std::stop_token stop) {
                             return store_->split(request, progress, std::move(stop));
                           });
  }

  Result<JobId> verify(const std::string& model, std::shared_ptr<JobEvents> events) override {
    return start_store_job("verify", model, std::move(events),
                           [this, model](const store::ProgressFn& progress, std::stop_token stop) {
                             return store_->verify(model, progress, std::move(stop));
                           });
  }

  Result<JobId> measure_disk(std::shared_ptr<JobEvents> events) override {
    return start_store_job("measure", "", std::move(events),
                           [this](const store::ProgressFn&, std::stop_token stop) -> Result<Json> {
                             AIRLLM_TRY(const store::ReadSpeed speed,
                                        store_->measure_read_speed(std::move(stop)));
                             return Json{{"path", speed.path},
                                         {"bytes", speed.bytes},
                                         {"seconds", speed.seconds},
                                         {"direct", speed.direct}};
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

  Result<Json> list() override;
  Result<Json> show(const std::string& model) override { return store_->show(model); }

  Status remove(const std::string& model) override {
    if (table_->uses(model)) {
      return Unexpected(ErrorCode::kTemporary, "the model '" + model + "' is in use",
                        "wait for its jobs (airllm ps), or end them with airllm cancel");
    }
    if (auto loaded = models_.take(model)) scheduler_.forget(std::move(loaded));
    return store_->remove(model);
  }

  std::vector<JobInfo> jobs() override { return table_->infos(); }
  Json status() override;
  void close_admission() override { table_->close(); }

 private:
  using StoreTask = std::function<Result<Json>(const store::ProgressFn&, std::stop_token)>;

  void prepare(const std::shared_ptr<JobRecord>& record, const GenerateRequest& request,
               const std::shared_ptr<JobEvents>& events);
  Result<JobId> start_store_job(const std::string& kind, const std::string& model,
                                std::shared_ptr<JobEvents> events, StoreTask task);
  void run_store_job(const std::shared_ptr<JobRecord>& record, JobEvents& events,
                     const StoreTask& task);

  const EngineOptions options_;
  const schedule::SchedulerOptions budgets_;
  const std::string cpu_;
  const std::string device_name_;
  const unsigned threads_;
  const std::unique_ptr<store::Store> store_;
  const std::shared_ptr<JobTable> table_;
  ModelCache models_;
  schedule::Scheduler scheduler_;

  struct StoreWorker {
    std::shared_ptr<JobRecord> record;
    std::jthread thread;
  };
  std::mutex workers_mutex_;
  std::vector<StoreWorker> workers_;
  SerialWorker preparer_;  // last: it uses all the others
};

void EngineImpl::prepare(const std::shared_ptr<JobRecord>& record, const GenerateRequest& request,
                         const std::shared_ptr<JobEvents>& events) {
  Result<std::shared_ptr<const LoadedModel>> model = models_.get(request.model);
  if (!model) return events->on_error(model.error());
  Result<std::vector<int32_t>> prompt = (*model)->encode_prompt(request);
  if (!prompt) return events->on_error(prompt.error());
  auto job = std::make_unique<GenerateJob>(record, *model, request, std::move(*prompt), events);
  job->accept();
  scheduler_.submit(std::move(job));
  if (record->is_cancelled()) scheduler_.notice_cancel();
}

Result<JobId> EngineImpl::start_store_job(const std::string& kind, const std::string& model,
                                          std::shared_ptr<JobEvents> events, StoreTask task) {
  const std::lock_guard lock(workers_mutex_);
  if (table_->count_store_jobs() >= kMostStoreJobs) {
    return Unexpected(ErrorCode::kTemporary,
                      std::to_string(kMostStoreJobs) + " splits and verifications run already",
                      "try again when one of them is done (airllm ps)");
  }
  AIRLLM_TRY(std::shared_ptr<JobRecord> record, table_->add(kind, model));
  const JobId id = record->id();
  // Threads of jobs that have left the table are over or about to be.
  std::erase_if(workers_,
                [this](const StoreWorker& worker) { return !table_->find(worker.record->id()); });
  auto wrapped = std::make_shared<TableEvents>(table_, id, std::move(events));
  workers_.push_back(
      {record, std::jthread([this, record, wrapped = std::move(wrapped), task = std::move(task)] {
         run_store_job(record, *wrapped, task);
       })});
  return id;
}

void EngineImpl::run_store_job(const std::shared_ptr<JobRecord>& record, JobEvents& events,
                               const StoreTask& task) {
  const auto progress = [&](const Progress& step) {
    record->update([&](JobInfo& info) {
      info.state = "running";
      info.done = step.done;
      info.total = step.total;
      info.unit = step.unit;
    });
    events.on_progress(step);
  };
  Result<Json> result = task(progress, record->stop_token());
  if (result) {
    events.on_done(*result);
  } else {
    events.on_error(result.error());
  }
}

Result<Json> EngineImpl::list() {
  AIRLLM_TRY(const std::vector<store::ModelSummary> models, store_->list());
  Json out = Json::array();
  for (const store::ModelSummary& model : models) {
    Json row = {{"name", model.name},       {"complete", model.complete},
                {"bundled", model.bundled}, {"bytes", model.bytes},
                {"family", model.family},   {"parameters", model.parameters},
                {"dtype", model.dtype},     {"layers", model.layers},
                {"created", model.created}, {"source", model.source}};
    if (!model.problem.empty()) row["problem"] = model.problem;
    out.push_back(std::move(row));
  }
  return out;
}

Json EngineImpl::status() {
  const schedule::MemoryStatus memory = scheduler_.memory();
  Json models = Json::array();
  for (const schedule::ModelMemory& model : memory.models) {
    models.push_back({{"name", model.name},
                      {"resident_bytes", model.resident_bytes},
                      {"ram_bytes", model.ram_bytes},
                      {"bytes", model.weight_bytes},
                      {"streams", model.streams}});
  }
  return {{"device", device_name_},
          {"cpu", cpu_},
          {"cpu_reason", kernels::backend_reason(cpu_)},
          {"threads", threads_},
          {"reader", "pread"},
          {"ram_bytes", budgets_.ram_bytes},
          {"ram_used_bytes", memory.ram_used_bytes},
          {"kv_bytes", budgets_.kv_bytes},
          {"kv_used_bytes", memory.kv_used_bytes},
          {"models", std::move(models)}};
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  AIRLLM_TRY(const kernels::Backend* const backend, kernels::choose_backend());
  AIRLLM_TRY(std::unique_ptr<store::Store> store,
             store::Store::open(options.store_dir, store::system_disk()));
  const uint64_t available = schedule::available_memory_bytes();
  schedule::SchedulerOptions budgets;
  budgets.ram_bytes = options.ram_bytes.value_or(schedule::default_ram_bytes(available));
  budgets.kv_bytes = options.kv_bytes.value_or(schedule::default_kv_bytes(available));
  const unsigned threads = options.threads > 0 ? options.threads : schedule::available_cores();
  log::info("store {}, {} kernels, {} threads, ram {}, kv {}", options.store_dir, backend->name,
            threads, format_size(budgets.ram_bytes), format_size(budgets.kv_bytes));
  return std::unique_ptr<Engine>(std::make_unique<EngineImpl>(
      std::move(store), stream::make_cpu_device(*backend, threads), options, budgets));
}

}  // namespace airllm::engine

#include "tests/daemon/fake_engine.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/json.h"

namespace airllm::daemon {

using engine::JobEvents;
using engine::JobId;

FakeEngine::FakeEngine(std::vector<std::string> models) {
  for (std::string& name : models) models_.push_back({std::move(name), ::geteuid()});
}

FakeEngine::~FakeEngine() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [id, job] : jobs_) job.cancelled = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

Result<JobId> FakeEngine::start(std::string kind, uid_t user, engine::ModelRef model,
                                std::shared_ptr<JobEvents> events, Body body) {
  const std::lock_guard lock(mutex_);
  if (closed_) return Unexpected(ErrorCode::kUnavailable, "no new jobs");
  const JobId id = next_++;
  Job& job = jobs_[id];
  job.info.job = id;
  job.info.kind = std::move(kind);
  job.info.user = user;
  job.info.model = std::move(model);
  job.info.state = "running";
  threads_.emplace_back([this, id, events = std::move(events), body = std::move(body)]() mutable {
    body(id, *events);
    events.reset();
    const std::lock_guard ending(mutex_);
    jobs_.erase(id);
    changed_.notify_all();
  });
  return id;
}

void FakeEngine::done(JobId job, JobEvents& out, const Json& result) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.erase(job);
  }
  out.on_done(result);
}

bool FakeEngine::cancelled_within(JobId job, std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [&] { return jobs_.at(job).cancelled; });
}

bool FakeEngine::has(const engine::ModelRef& model) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(models_.begin(), models_.end(),
                     [&](const engine::FoundModel& found) { return found.model == model; });
}

Result<engine::FoundModel> FakeEngine::find(const std::string& name, const engine::Viewer& viewer,
                                            bool) {
  const std::lock_guard lock(mutex_);
  const engine::FoundModel* best = nullptr;
  for (const engine::FoundModel& found : models_) {
    if (found.model.name != name || !viewer.sees(found.model)) continue;
    const bool is_own = found.model.holder && found.model.holder == viewer.user;
    if (best == nullptr || is_own ||
        (best->model.holder && !found.model.holder && best->model.holder != viewer.user)) {
      best = &found;
    }
  }
  if (best != nullptr) return *best;
  return Unexpected(ErrorCode::kNoInput, "no model '" + name + "'");
}

void FakeEngine::run_generate(JobId job, const std::string& model, JobEvents& events) {
  using namespace std::chrono_literals;
  engine::GenerateAccepted accepted;
  accepted.job = job;
  accepted.model = model;
  events.on_accepted(accepted);
  engine::GenerateResult result;
  const auto token = [&](std::string text) {
    events.on_token({static_cast<int32_t>(result.completion_tokens++), std::move(text), {}});
  };
  bool cancelled = false;
  if (model == "short") {
    for (int i = 0; i < 3; ++i) token("t" + std::to_string(i));
  } else if (model == "endless") {
    while (!(cancelled = cancelled_within(job, 1ms))) token("x");
  } else if (model == "flood") {
    for (int i = 0; i < 4096 && !(cancelled = cancelled_within(job, 0ms)); ++i) {
      token(std::string(65536, 'f'));
    }
  } else {
    while (!(cancelled = cancelled_within(job, 1s))) {
    }
    if (model == "deaf") std::this_thread::sleep_for(300ms);
  }
  result.finish_reason =
      cancelled ? engine::FinishReason::kCancelled : engine::FinishReason::kLength;
  events.on_generated(result);
}

Result<JobId> FakeEngine::generate(engine::GenerateRequest request,
                                   std::shared_ptr<JobEvents> events) {
  const std::string model = request.model.name;
  return start("generate", request.user, request.model, std::move(events),
               [this, model](JobId job, JobEvents& out) { run_generate(job, model, out); });
}

Result<JobId> FakeEngine::run_text(engine::TextRequest request, std::shared_ptr<JobEvents> events) {
  const std::string kind = engine::kind_of(request);
  const auto user = request.user;
  const engine::ModelRef model = request.model;
  return start(
      kind, user, model, std::move(events),
      [this, request = std::move(request)](JobId job, JobEvents& out) {
        Json result{{"model", request.model.name}};
        if (const auto* work = std::get_if<engine::TokenizeRequest>(&request.work)) {
          const std::vector<int32_t> ids(work->text.begin(), work->text.end());
          if (!work->counts_only) out.on_tokens(ids, {});
          result["count"] = ids.size();
        } else if (const auto* ids = std::get_if<engine::DetokenizeRequest>(&request.work)) {
          out.on_text(std::string(ids->ids.begin(), ids->ids.end()));
        } else {
          out.on_text(std::get<engine::TemplateRequest>(request.work).input_json);
        }
        done(job, out, result);
      });
}

Result<JobId> FakeEngine::split(engine::SplitRequest request, std::shared_ptr<JobEvents> events) {
  auto source = std::move(request.source);
  const uid_t user = request.owner.value_or(::geteuid());
  return start("split", user, {request.name, request.owner}, std::move(events),
               [this, source](JobId job, JobEvents& out) {
                 out.on_progress({"split", 0, 2, "bytes"});
                 auto files = source->open(kSplitNames);
                 if (!files) return out.on_error(files.error());
                 Json sizes = Json::array();
                 for (const UniqueFd& fd : *files) {
                   struct stat info {};
                   sizes.push_back(fd.valid() && ::fstat(fd.get(), &info) == 0
                                       ? Json(int64_t{info.st_size})
                                       : Json());
                 }
                 done(job, out, Json{{"sizes", sizes}});
               });
}

Result<JobId> FakeEngine::verify(const engine::ModelRef& model, uid_t user,
                                 std::shared_ptr<JobEvents> events,
                                 std::shared_ptr<engine::OwnerFiles>) {
  return start("verify", user, model, std::move(events), [this](JobId job, JobEvents& out) {
    done(job, out, Json{{"ok", true}});
  });
}

Result<JobId> FakeEngine::stop(const engine::ModelRef& model, uid_t user,
                               std::shared_ptr<JobEvents> events) {
  return start("stop", user, model, std::move(events), [this, model](JobId job, JobEvents& out) {
    done(job, out, Json{{"name", model.name}, {"was_in_memory", true}, {"freed_bytes", 4096}});
  });
}

Result<JobId> FakeEngine::measure_disk(uid_t user, std::shared_ptr<JobEvents> events) {
  return start("measure", user, {}, std::move(events), [this](JobId job, JobEvents& out) {
    done(job, out, Json{{"path", "shard"}, {"bytes", 1000}, {"seconds", 0.5}, {"direct", true}});
  });
}

Result<JobId> FakeEngine::bench_stream(engine::BenchRequest request,
                                       std::shared_ptr<JobEvents> events) {
  const uint64_t sweeps = request.sweeps;
  const std::string model = request.model.name;
  return start("bench", request.user, request.model, std::move(events),
               [this, sweeps, model](JobId job, JobEvents& out) {
                 out.on_progress({"bench", 0, sweeps, "sweeps"});
                 const bool is_long = model == "endless" || model == "silent";
                 while (is_long) {
                   if (!cancelled_within(job, std::chrono::seconds(1))) continue;
                   return out.on_error({ErrorCode::kCancelled, "cancelled", {}});
                 }
                 done(job, out, Json{{"model", model}, {"sweeps", sweeps}});
               });
}

Result<JobId> FakeEngine::bench_kernels(engine::KernelBenchRequest request,
                                        std::shared_ptr<JobEvents> events) {
  return start("bench", request.user, {}, std::move(events),
               [this, request](JobId job, JobEvents& out) {
                 out.on_progress({"bench", 0, request.rounds, "rounds"});
                 done(job, out, Json{{"rounds", request.rounds}});
               });
}

Status FakeEngine::cancel(JobId job) {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(job);
  if (found == jobs_.end()) return Unexpected(ErrorCode::kNoInput, "no such job");
  if (!found->second.cancelled) ++cancelled_;
  found->second.cancelled = true;
  changed_.notify_all();
  return {};
}

Result<Json> FakeEngine::list(const engine::Viewer& viewer) {
  const std::lock_guard lock(mutex_);
  Json rows = Json::array();
  for (const engine::FoundModel& found : models_) {
    const std::string& name = found.model.name;
    if (!viewer.sees(found.model)) continue;
    rows.push_back({{"name", name}, {"complete", true}, {"bundled", name == bundled_}});
  }
  return rows;
}

Result<Json> FakeEngine::show(const engine::ModelRef& model) {
  return Json{{"name", model.name}, {"shared", !model.holder}};
}

Status FakeEngine::remove(const engine::ModelRef& model) {
  const std::lock_guard lock(mutex_);
  std::erase_if(models_, [&](const auto& found) { return found.model == model; });
  return {};
}

Status FakeEngine::share(const engine::ModelRef& model) {
  const std::lock_guard lock(mutex_);
  for (engine::FoundModel& found : models_) {
    if (found.model == model) found.model.holder.reset();
  }
  return {};
}

std::vector<engine::JobInfo> FakeEngine::jobs() {
  const std::lock_guard lock(mutex_);
  std::vector<engine::JobInfo> rows;
  for (const auto& [id, job] : jobs_) rows.push_back(job.info);
  return rows;
}

Json FakeEngine::status(const engine::Viewer&) {
  return Json{{"device", "fake"}, {"cpu", "none"}, {"reader", "fake"}};
}

void FakeEngine::close_admission() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void FakeEngine::apply(const engine::EngineOptions& options) {
  const std::lock_guard lock(mutex_);
  applied_ = options;
}

engine::EngineOptions FakeEngine::applied() const {
  const std::lock_guard lock(mutex_);
  return applied_;
}

size_t FakeEngine::running() const {
  const std::lock_guard lock(mutex_);
  return jobs_.size();
}

}  // namespace airllm::daemon

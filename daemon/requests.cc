#include "daemon/requests.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/duration.h"
#include "base/event.h"
#include "base/json.h"
#include "base/log.h"
#include "base/users.h"
#include "base/utf8.h"
#include "base/version.h"
#include "daemon/doctor.h"

namespace airllm::daemon {
namespace {

// A row of ps. Of another's job one sees that it is there and what it waits for; how long prompt
// and answer are would tell about the text.
Json to_json(const engine::JobInfo& info, const User& user) {
  Json row{{"job", info.job},
           {"kind", info.kind},
           {"user", user_name(info.user)},
           {"state", info.state},
           {"age_seconds", info.age_seconds}};
  if (viewer_to_manage(user).sees(info.model)) row["model"] = info.model.name;
  if (info.user != user.uid && !user.is_operator) return row;
  row["prompt_tokens"] = info.prompt_tokens;
  row["completion_tokens"] = info.completion_tokens;
  row["done"] = info.done;
  row["total"] = info.total;
  row["unit"] = info.unit;
  return row;
}

// NaN and infinity are numbers to msgpack; no option means anything with them.
Status check_option(const char* name, const std::optional<double>& value, bool in_range,
                    const char* range) {
  if (!value || (std::isfinite(*value) && in_range)) return {};
  return Unexpected(ErrorCode::kUsage, std::string(name) + " is not " + range);
}

Status check_sampling(const protocol::SamplingOptions& s) {
  AIRLLM_TRY_VOID(
      check_option("temperature", s.temperature, s.temperature >= 0.0, "a number from 0"));
  AIRLLM_TRY_VOID(check_option("top_p", s.top_p, s.top_p > 0.0 && s.top_p <= 1.0,
                               "a number above 0, at most 1"));
  AIRLLM_TRY_VOID(
      check_option("min_p", s.min_p, s.min_p >= 0.0 && s.min_p <= 1.0, "a number from 0 to 1"));
  AIRLLM_TRY_VOID(check_option("repetition_penalty", s.repetition_penalty,
                               s.repetition_penalty > 0.0, "a number above 0"));
  if (s.top_k && *s.top_k < 0) {
    return Unexpected(ErrorCode::kUsage, "top_k is not a whole number from 0");
  }
  return {};
}

Status check_prompt(const protocol::GenerateParams& params) {
  const int given =
      (params.messages.empty() ? 0 : 1) + (params.raw_text ? 1 : 0) + (params.prompt_ids ? 1 : 0);
  if (given == 1) return {};
  return Unexpected(ErrorCode::kUsage,
                    "a generate request has exactly one of messages, raw_text and prompt_ids; "
                    "this one has " +
                        std::to_string(given));
}

std::chrono::milliseconds to_duration(uint64_t milliseconds) {
  const bool is_forever = milliseconds > static_cast<uint64_t>(kLongestDuration.count());
  return is_forever ? kForever : std::chrono::milliseconds(milliseconds);
}

Result<engine::GenerateRequest> to_engine(const protocol::GenerateParams& params) {
  AIRLLM_TRY_VOID(check_prompt(params));
  const protocol::SamplingOptions& sampling = params.sampling;
  AIRLLM_TRY_VOID(check_sampling(sampling));
  engine::GenerateRequest request;
  for (const protocol::ChatMessage& message : params.messages) {
    request.messages.push_back({message.role, message.content});
  }
  request.raw_text = params.raw_text;
  request.prompt_ids = params.prompt_ids;
  request.special = params.special;
  request.sampling = {sampling.temperature,        sampling.top_k, sampling.top_p, sampling.min_p,
                      sampling.repetition_penalty, sampling.seed};
  request.max_tokens = params.max_tokens;
  request.stop = params.stop;
  request.ignore_eos = params.ignore_eos;
  request.logprobs = params.logprobs;
  request.prompt_logprobs = params.prompt_logprobs;
  if (params.keep_alive_ms) request.keep_alive = to_duration(*params.keep_alive_ms);
  request.profile = params.profile;
  return request;
}

Status check_bench_length(uint64_t count, const char* unit) {
  if (count <= engine::kMaxBenchSweeps) return {};
  return Unexpected(ErrorCode::kUsage,
                    "a bench has at most " + std::to_string(engine::kMaxBenchSweeps) + " " + unit);
}

template <typename T>
constexpr bool kIsJob =
    std::is_same_v<T, protocol::GenerateParams> || std::is_same_v<T, protocol::TokenizeParams> ||
    std::is_same_v<T, protocol::DetokenizeParams> || std::is_same_v<T, protocol::TemplateParams> ||
    std::is_same_v<T, protocol::SplitParams> || std::is_same_v<T, protocol::VerifyParams> ||
    std::is_same_v<T, protocol::MeasureDiskParams> || std::is_same_v<T, protocol::StopParams> ||
    std::is_same_v<T, protocol::BenchStreamParams> ||
    std::is_same_v<T, protocol::BenchKernelsParams>;

}  // namespace

Status Requests::handle(protocol::Request request) {
  const uint64_t id = request.id;
  if (id == 0) return Unexpected(ErrorCode::kProtocol, "a request has the id 0");
  if (running_.contains(id)) {
    return Unexpected(ErrorCode::kProtocol,
                      "the request id " + std::to_string(id) + " is running already");
  }
  std::visit(
      [&](const auto& params) {
        if constexpr (kIsJob<std::decay_t<decltype(params)>>) {
          const Status started =
              context_.stopping ? Unexpected(engine::stopping_error()) : start(id, params);
          if (!started) refuse(id, started.error());
        } else {
          finish(id, answer(params));
        }
      },
      request.params);
  return {};
}

void Requests::finish(uint64_t id, Result<Json> result) {
  protocol::EventBody body = protocol::Failed{};
  if (result) {
    body = protocol::Done{dump_json(*result)};
  } else {
    body = protocol::Failed{std::move(result).error()};
  }
  outbox_->push_final(encode_event(id, std::move(body)), id);
}

void Requests::refuse(uint64_t id, const Error& error) {
  if (error.code == ErrorCode::kTemporary) {
    log::event_happened(log::event::kClientRefused,
                        {{log::kUserField, std::to_string(user_.uid)},
                         {log::kErrorField, std::string(error_name(error.code))}},
                        "a job of user {} was refused: {}", user_.uid, error.message);
  }
  finish(id, Unexpected(error));
}

// ---- jobs --------------------------------------------------------------------------------------

Status Requests::start(uint64_t id, const protocol::GenerateParams& params) {
  AIRLLM_TRY(engine::GenerateRequest request, to_engine(params));
  AIRLLM_TRY(request.model, resolve_model(params.model, context_.default_model, context_.engine,
                                          viewer_to_ask(user_)));
  request.user = user_.uid;
  auto bridge = std::make_shared<JobBridge>(id, outbox_, true);
  const std::string model = request.model.name;
  auto directory = owner_directory(request.model, params.opens_files, bridge);
  request.owner_files = directory;
  AIRLLM_TRY(const engine::JobId job, context_.engine.generate(std::move(request), bridge));
  context_.memory_given_back = false;
  keep(id, {job, std::move(bridge), std::move(directory), "generate", model});
  return {};
}

Status Requests::start(uint64_t id, const protocol::TokenizeParams& params) {
  return start_text(id, params.model,
                    engine::TokenizeRequest{params.text, params.special, !params.no_add_special,
                                            params.count_only, params.pieces});
}

Status Requests::start(uint64_t id, const protocol::DetokenizeParams& params) {
  return start_text(id, params.model, engine::DetokenizeRequest{params.ids, params.skip_special});
}

Status Requests::start(uint64_t id, const protocol::TemplateParams& params) {
  return start_text(id, params.model,
                    engine::TemplateRequest{params.input_json, !params.no_generation_prompt});
}

Status Requests::start_text(uint64_t id, const std::string& model, engine::TextWork work) {
  engine::TextRequest request{{}, user_.uid, std::move(work)};
  AIRLLM_TRY(request.model,
             resolve_model(model, context_.default_model, context_.engine, viewer_to_ask(user_)));
  const std::string name = request.model.name;
  const char* const kind = engine::kind_of(request);
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  AIRLLM_TRY(const engine::JobId job, context_.engine.run_text(std::move(request), bridge));
  bridge->accept(job, name);
  keep(id, {job, std::move(bridge), nullptr, kind, name});
  return {};
}

Status Requests::start(uint64_t id, const protocol::SplitParams& params) {
  AIRLLM_TRY_VOID(check_split_limit());
  engine::SplitRequest request{params.name, params.source_label, nullptr};
  if (user_.uid != ::geteuid()) request.owner = user_.uid;
  request.share = params.share;
  request.in_place = params.in_place;
  request.only_plan = params.only_plan;
  request.format = params.format;
  request.allows_nonfinite = params.allow_nonfinite;
  request.has_quota = !user_.is_operator;
  request.memory_bytes = context_.options.split_memory_bytes;
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  std::shared_ptr<RemoteDirectory> directory;
  if (params.from_model) {
    AIRLLM_TRY(request.from, source_model(params));
    request.source_label = request.from->name;
  } else {
    directory =
        std::make_shared<RemoteDirectory>(bridge, params.source_label, params.chat_templates);
    request.source = directory;
  }
  if (request.name.empty()) {
    AIRLLM_TRY(request.name, name_from_label(params.source_label));
  }
  const std::string name = request.name;
  AIRLLM_TRY(const engine::JobId job, context_.engine.split(std::move(request), bridge));
  bridge->accept(job, name);
  keep(id, {job, std::move(bridge), std::move(directory), "split", name});
  return {};
}

// The model that another one is to be made of.
Result<engine::ModelRef> Requests::source_model(const protocol::SplitParams& params) const {
  if (params.name.empty() || params.in_place || !params.chat_templates.empty()) {
    return Unexpected(ErrorCode::kUsage,
                      "what is made of a model of the store has a name, and no folder",
                      "give the new model a name");
  }
  AIRLLM_TRY(const engine::FoundModel found,
             context_.engine.find(*params.from_model, viewer_to_ask(user_)));
  return found.model;
}

Status Requests::start(uint64_t id, const protocol::VerifyParams& params) {
  AIRLLM_TRY_VOID(check_split_limit());
  AIRLLM_TRY(const engine::ModelRef model, resolve_model(params.model, context_.default_model,
                                                         context_.engine, viewer_to_manage(user_)));
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  auto directory = owner_directory(model, params.opens_files, bridge);
  AIRLLM_TRY(const engine::JobId job, context_.engine.verify(model, user_.uid, bridge, directory));
  bridge->accept(job, model.name);
  keep(id, {job, std::move(bridge), std::move(directory), "verify", model.name});
  return {};
}

// A model that a job uses is not stopped, so a shared one may be by everybody.
Status Requests::start(uint64_t id, const protocol::StopParams& params) {
  if (params.model.empty()) return Unexpected(ErrorCode::kUsage, "no model is named");
  AIRLLM_TRY(const engine::FoundModel found,
             context_.engine.find(params.model, viewer_to_manage(user_)));
  const std::string& name = found.model.name;
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  AIRLLM_TRY(const engine::JobId job, context_.engine.stop(found.model, user_.uid, bridge));
  bridge->accept(job, name);
  context_.memory_given_back = true;
  keep(id, {job, std::move(bridge), nullptr, "stop", name});
  return {};
}

Status Requests::start(uint64_t id, const protocol::MeasureDiskParams&) {
  AIRLLM_TRY_VOID(check_split_limit());
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  AIRLLM_TRY(const engine::JobId job, context_.engine.measure_disk(user_.uid, bridge));
  bridge->accept(job, "");
  keep(id, {job, std::move(bridge), nullptr, "measure", ""});
  return {};
}

Status Requests::start(uint64_t id, const protocol::BenchKernelsParams& params) {
  AIRLLM_TRY_VOID(check_split_limit());
  AIRLLM_TRY_VOID(check_bench_length(params.rounds, "rounds"));
  engine::KernelBenchRequest request{.user = user_.uid};
  if (params.rounds > 0) request.rounds = params.rounds;
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  AIRLLM_TRY(const engine::JobId job, context_.engine.bench_kernels(request, bridge));
  bridge->accept(job, "");
  keep(id, {job, std::move(bridge), nullptr, "bench", ""});
  return {};
}

// As generate: it runs the model.
Status Requests::start(uint64_t id, const protocol::BenchStreamParams& params) {
  AIRLLM_TRY_VOID(check_split_limit());
  AIRLLM_TRY_VOID(check_bench_length(params.sweeps, "sweeps"));
  engine::BenchRequest request;
  AIRLLM_TRY(request.model, resolve_model(params.model, context_.default_model, context_.engine,
                                          viewer_to_ask(user_)));
  request.user = user_.uid;
  if (params.sweeps > 0) request.sweeps = params.sweeps;
  const std::string model = request.model.name;
  auto bridge = std::make_shared<JobBridge>(id, outbox_, false);
  auto directory = owner_directory(request.model, params.opens_files, bridge);
  request.owner_files = directory;
  AIRLLM_TRY(const engine::JobId job, context_.engine.bench_stream(std::move(request), bridge));
  bridge->accept(job, model);
  context_.memory_given_back = false;
  keep(id, {job, std::move(bridge), std::move(directory), "bench", model});
  return {};
}

// Through which files of a model that is read in place are asked for: nobody but its owner passes
// them. Null when the peer is not the owner, or does not answer.
std::shared_ptr<RemoteDirectory> Requests::owner_directory(
    const engine::ModelRef& model, bool opens_files, const std::shared_ptr<JobBridge>& bridge) {
  if (!opens_files) return nullptr;
  const auto found = context_.engine.find(model.name, viewer_to_ask(user_));
  if (!found || found->model != model || found->owner != user_.uid) return nullptr;
  return std::make_shared<RemoteDirectory>(bridge, model.name, std::vector<std::string>());
}

void Requests::keep(uint64_t id, Running running) {
  context_.jobs.add(running.job, user_.uid, running.directory);
  log::event_happened(log::event::kJobAccepted,
                      {{log::kJobField, std::to_string(running.job)},
                       {log::kUserField, std::to_string(user_.uid)},
                       {log::kModelField, running.model},
                       {log::kKindField, running.kind}},
                      "job {}: {} with model {} for user {}", running.job, running.kind,
                      running.model, user_.uid);
  running_.emplace(id, std::move(running));
}

void Requests::log_end(const Running& running) const {
  const std::optional<ErrorCode> failure = running.bridge->failure();
  const std::string reason = failure ? std::string(error_name(*failure)) : "";
  // That a job was cancelled is no trouble.
  const bool is_end = !failure || failure == ErrorCode::kCancelled;
  log::event_happened(is_end ? log::event::kJobFinished : log::event::kJobFailed,
                      {{log::kJobField, std::to_string(running.job)},
                       {log::kUserField, std::to_string(user_.uid)},
                       {log::kModelField, running.model},
                       {log::kKindField, running.kind},
                       {log::kErrorField, reason}},
                      "job {}: {} with model {} for user {} {}", running.job, running.kind,
                      running.model, user_.uid, failure ? "ended: " + reason : "is done");
}

void Requests::cancel(const protocol::Cancel& cancel) {
  const auto found = running_.find(cancel.id);
  if (found != running_.end()) context_.jobs.cancel_now(found->second.job);
}

Status Requests::deliver(protocol::Files files, std::vector<UniqueFd> descriptors) {
  const auto found = running_.find(files.id);
  // The job may have ended while the files were on their way.
  if (found == running_.end()) return {};
  if (!found->second.directory) {
    return Unexpected(ErrorCode::kProtocol, "files came for a request that reads none");
  }
  return found->second.directory->deliver(std::move(files), std::move(descriptors));
}

void Requests::ended(uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  const Running running = std::move(found->second);
  running_.erase(found);
  if (running.directory) running.directory->close();
  log_end(running);
  context_.jobs.remove(running.job);
}

void Requests::given_up(uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  log::warning("job {}: cancelled, its client does not read", found->second.job);
  context_.jobs.cancel_now(found->second.job);
}

void Requests::fail_all(const Error& error) {
  for (auto& [id, running] : running_) {
    running.bridge->fail(error);
    context_.jobs.cancel_now(running.job);
  }
}

void Requests::abandon() {
  for (auto& [id, running] : std::exchange(running_, {})) {
    running.bridge->drop();
    context_.jobs.cancel_now(running.job);
    log_end(running);
    context_.jobs.remove(running.job);
  }
}

Status Requests::check_split_limit() const {
  if (user_.is_operator) return {};
  const std::vector<engine::JobInfo> jobs = context_.engine.jobs();
  const auto count = std::count_if(jobs.begin(), jobs.end(), [&](const engine::JobInfo& info) {
    return info.user == user_.uid && engine::is_store_job(info);
  });
  const uint64_t most = context_.options.max_splits_per_user;
  if (static_cast<uint64_t>(count) < most) return {};
  return Unexpected(
      ErrorCode::kTemporary,
      "user " + user_name(user_.uid) + " has " + std::to_string(count) +
          " splits, verifications and benches running, and max-splits-per-user allows " +
          std::to_string(most),
      "try again when one of them is done (airllm ps), or raise max-splits-per-user "
      "in the daemon's settings");
}

Result<engine::FoundModel> Requests::find_to_change(const std::string& name,
                                                    const std::string& verb) {
  if (name.empty()) return Unexpected(ErrorCode::kUsage, "no model is named");
  AIRLLM_TRY(engine::FoundModel found, context_.engine.find(name, viewer_to_manage(user_), true));
  AIRLLM_TRY_VOID(check_may_change(user_, found, verb));
  return found;
}

// The default is for all users: administrators choose it, among the shared models. One that is not
// there would fail every later request instead of this one.
Status Requests::check_default(const std::string& name) const {
  if (!user_.is_admin) {
    return Unexpected(ErrorCode::kNoPermission,
                      "the daemon's default model counts for all users: only administrators may "
                      "set it",
                      "set yours without --daemon: airllm default MODEL");
  }
  if (name.empty()) return {};
  auto found = context_.engine.find(name, engine::Viewer{});
  if (found) return {};
  if (context_.engine.find(name, viewer_to_manage(user_))) {
    return Unexpected(ErrorCode::kUsage,
                      "the model " + name + " is private, and the default is for all users",
                      "share it first: airllm share " + name);
  }
  return Unexpected(std::move(found).error());
}

// ---- answered at once --------------------------------------------------------------------------

Result<Json> Requests::answer(const protocol::ListParams&) {
  return context_.engine.list(viewer_to_manage(user_));
}

Result<Json> Requests::answer(const protocol::ShowParams& params) {
  AIRLLM_TRY(const engine::ModelRef model, resolve_model(params.model, context_.default_model,
                                                         context_.engine, viewer_to_manage(user_)));
  return context_.engine.show(model);
}

Result<Json> Requests::answer(const protocol::PsParams&) {
  Json rows = Json::array();
  for (const engine::JobInfo& info : context_.engine.jobs()) rows.push_back(to_json(info, user_));
  return rows;
}

Result<Json> Requests::answer(const protocol::RemoveParams& params) {
  AIRLLM_TRY(const engine::FoundModel found, find_to_change(params.model, "remove"));
  AIRLLM_TRY_VOID(context_.engine.remove(found.model));
  log::info("user {} removed model '{}' of user {}", user_.uid, params.model, found.owner);
  return Json{{"removed", params.model}};
}

Result<Json> Requests::answer(const protocol::ShareParams& params) {
  AIRLLM_TRY(const engine::FoundModel found, find_to_change(params.model, "share"));
  AIRLLM_TRY_VOID(context_.engine.share(found.model));
  const bool unchanged = !found.model.holder;
  if (!unchanged) {
    log::info("user {} shared model '{}' of user {}", user_.uid, params.model, found.owner);
  }
  return Json{{"name", params.model},
              {"owner", user_name(found.owner)},
              {"shared", true},
              {"unchanged", unchanged}};
}

Result<Json> Requests::answer(const protocol::JobParams& params) {
  AIRLLM_TRY_VOID(context_.jobs.cancel(params.job, user_));
  return Json{{"cancelled", params.job}};
}

Result<Json> Requests::answer(const protocol::StatusParams&) {
  Json status = context_.engine.status(viewer_to_manage(user_));
  if (!status.is_object()) status = Json::object();
  const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - context_.started;
  status["version"] = kProgramVersion;
  status["pid"] = static_cast<int64_t>(::getpid());
  status["socket"] = context_.options.socket_path;
  status["store"] = context_.options.store_dir;
  status["uptime_seconds"] = uptime.count();
  status["jobs"] = context_.jobs.size();
  status["default_model"] = context_.default_model.get();
  status["stopping"] = context_.stopping;
  return status;
}

Result<Json> Requests::answer(const protocol::DefaultParams& params) {
  if (params.model) {
    AIRLLM_TRY_VOID(check_default(*params.model));
    AIRLLM_TRY_VOID(context_.default_model.set(*params.model));
  }
  return Json{{"model", context_.default_model.get()}};
}

Result<Json> Requests::answer(const protocol::DoctorParams&) {
  return Json{{"checks", doctor_checks(context_, viewer_to_ask(user_))}};
}

Result<Json> Requests::answer(const protocol::UnknownMethod& unknown) {
  return Unexpected(
      ErrorCode::kProtocol,
      "unknown method '" + escape_for_display(unknown.method.substr(0, 64), true) + "'",
      "client and daemon should be of the same version");
}

}  // namespace airllm::daemon

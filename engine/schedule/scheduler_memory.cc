// The Scheduler's care for memory: which models keep theirs, which give it back, and what a smaller
// or larger budget makes of them.
#include <algorithm>
#include <utility>

#include "base/duration.h"
#include "base/event.h"
#include "base/log.h"
#include "base/units.h"
#include "engine/schedule/scheduler.h"

namespace airllm::schedule {
void Scheduler::set_keeping(std::chrono::milliseconds keep_alive, std::vector<std::string> keep) {
  {
    const std::lock_guard lock(mutex_);
    keep_alive_ = keep_alive;
    keep_ = std::move(keep);
  }
  change_noticed_ = true;
  changed_.notify_all();
}

void Scheduler::set_ram_budget(uint64_t bytes, std::string reason) {
  {
    const std::lock_guard lock(mutex_);
    wanted_budget_bytes_ = std::min(bytes, options_.ram_bytes);
    budget_reason_ = std::move(reason);
  }
  change_noticed_ = true;
  changed_.notify_all();
}

// What need not wait for the end of a sweep.
void Scheduler::give_back() {
  if (change_noticed_.exchange(false)) {
    give_back_released();
    take_budget();
    publish_memory();
  }
  if (Clock::now() >= next_expiry_) give_back_expired();
}

void Scheduler::give_back_released() {
  std::vector<Release> releases;
  {
    const std::lock_guard lock(mutex_);
    releases.swap(releases_);
  }
  std::vector<std::pair<Released, Result<std::optional<uint64_t>>>> ends;
  for (Release& release : releases) {
    const bool is_running =
        active_ != nullptr && active_->model() == release.model && !running_.empty();
    if (release.done && is_wanted(release.model)) {
      ends.emplace_back(std::move(release.done), model_in_use(release.ref.name));
    } else if (is_running) {  // looked at again after the sweep
      const std::lock_guard lock(mutex_);
      releases_.push_back(std::move(release));
      change_noticed_ = true;
    } else {
      std::optional<uint64_t> freed_bytes = drop(release.model);
      if (!freed_bytes) freed_bytes = drop_received(release.ref);
      ends.emplace_back(std::move(release.done), freed_bytes);
    }
  }
  if (ends.empty()) return;
  publish_memory();
  for (auto& [done, freed_bytes] : ends) {
    if (done) done(std::move(freed_bytes));
  }
}

// What does not fit a smaller budget: idle models, the least recently used first, and last those
// that the setting keeps.
void Scheduler::take_budget() {
  {
    const std::lock_guard lock(mutex_);
    ram_budget_bytes_ = wanted_budget_bytes_;
  }
  for (const bool kept : {false, true}) {
    while (ram_in_use() > ram_budget_bytes_ && drop_a_received(kept)) {
    }
    for (size_t at = 0; at < models_.size() && ram_in_use() > ram_budget_bytes_;) {
      const ActiveModel& model = *models_[at];
      const bool is_running = active_ == &model && !running_.empty();
      if (is_running || is_kept(model.model()->ref()) != kept) {
        ++at;
      } else {
        drop(model.model());
      }
    }
  }
}

// The models that nobody has used for as long as they are to be kept.
void Scheduler::give_back_expired() {
  const Clock::time_point now = Clock::now();
  std::vector<std::shared_ptr<const LoadedModel>> expired;
  for (const auto& active : models_) {
    if (expiry(*active) > now) continue;
    log::info("model {}: not used for {}", active->model()->name(),
              format_duration(keep_alive_of(*active)));
    expired.push_back(active->model());
  }
  for (const auto& model : expired) {
    drop(model);
    if (options_.on_expired) options_.on_expired(model->ref());
  }
  std::vector<engine::ModelRef> received;
  for (const LastingWeights& weights : received_) {
    if (received_expiry(weights) <= now) received.push_back(weights.info().model);
  }
  for (const engine::ModelRef& ref : received) {
    log::info("model {}: not used since the start", ref.name);
    drop_received(ref);
  }
  publish_memory();
}

// max() for a model that is in use or stays for ever.
Clock::time_point Scheduler::expiry(const ActiveModel& model) const {
  const bool is_running = active_ == &model && !running_.empty();
  const std::chrono::milliseconds keep_alive = keep_alive_of(model);
  if (is_running || is_wanted(model.model()) || is_kept(model.model()->ref()) ||
      keep_alive == kForever) {
    return Clock::time_point::max();
  }
  return model.idle_since() + keep_alive;
}

std::chrono::milliseconds Scheduler::keep_alive_of(const ActiveModel& model) const {
  return model.keep_alive().value_or(keep_alive_.load());
}

// The setting names shared models.
bool Scheduler::is_kept(const engine::ModelRef& ref) const {
  const std::lock_guard lock(mutex_);
  return !ref.holder && std::find(keep_.begin(), keep_.end(), ref.name) != keep_.end();
}

// Other models keep their memory when both fit; otherwise the least recently used ones go, whole,
// but for those that the setting keeps.
void Scheduler::make_room_for(const ModelBudget& need) {
  const auto fits = [&] {
    const ModelBudget left = budget_left();
    return left.ram_bytes >= std::min(need.ram_bytes, ram_budget_bytes_) &&
           (!need.vram_bytes || *left.vram_bytes >= *need.vram_bytes);
  };
  while (!fits()) {
    if (drop_a_received(false)) continue;
    const auto victim = std::find_if(models_.begin(), models_.end(), [&](const auto& active) {
      return !is_kept(active->model()->ref());
    });
    if (victim == models_.end()) return;
    drop((*victim)->model());
  }
}

// `error`, for which `model` cannot run; one about the budget names what leaves too little of it:
// models that the setting keeps, and memory pressure.
Error Scheduler::without_room(Error error, const LoadedModel& model) const {
  if (error.code != ErrorCode::kConfig) return error;
  if (!models_.empty()) {
    std::string kept;
    for (const auto& active : models_) kept += (kept.empty() ? "" : ", ") + active->model()->name();
    error.message = "model " + model.name() + ": the setting keep holds " + kept +
                    " in memory, which leaves " + format_size(ram_left()) + " of the " +
                    format_size(ram_budget_bytes_) + " of ram: " + error.message;
    error.remedy = "take " + kept + " out of the daemon's setting keep, or give it more ram";
  }
  if (ram_budget_bytes_ < options_.ram_bytes) {
    error.code = ErrorCode::kTemporary;
    error.message += "; under memory pressure, the " + format_size(options_.ram_bytes) +
                     " of ram are " + format_size(ram_budget_bytes_) + " now";
    error.remedy = "try again when memory is free (airllm ps)";
  }
  return error;
}

// Between two sweeps no row is under way: the model in use gets another plan where the budget has
// become too small for the one that it has, or, after that, a good deal larger.
void Scheduler::follow_budget() {
  const uint64_t now = active_->ram_bytes();
  const uint64_t others = ram_in_use() - now;
  const uint64_t room = ram_budget_bytes_ - std::min(ram_budget_bytes_, others);
  const bool may_grow = active_->is_shrunk() && active_->reads() && room >= now + now / 4;
  if ((now <= room && !may_grow) || !active_->consider(room)) return;
  replan_active(room);
}

void Scheduler::replan_active(uint64_t ram_bytes) {
  ModelBudget budget{ram_bytes, {}, 0};  // keys and values stay where they are
  if (stream::Arena* arena = device_->arena()) {
    budget.vram_bytes = arena->free_bytes() + active_->vram_bytes();
  }
  Result<PlannedMemory> memory =
      ActiveModel::plan_memory(*active_->model(), budget, options_.defaults);
  if (!memory) {
    log::warning("model {}: stays as it is under memory pressure: {}", active_->model()->name(),
                 memory.error().message);
    return;
  }
  const std::shared_ptr<const LoadedModel> model = active_->model();
  const bool is_proven = active_->is_proven();
  std::unique_ptr<kv::KvPool> kv = active_->take_kv();
  drop(model);  // before the new plan's memory is taken
  Result<std::unique_ptr<ActiveModel>> made = take_memory(model, std::move(*memory), kv);
  if (!made) {
    log::error("model {}: {}", model->name(), made.error().message);
    return restart_running();
  }
  if (is_proven) (*made)->set_proven();
  models_.push_back(std::move(*made));
  active_ = models_.back().get();
  publish_memory();
}

// What is received is given to the model whose plan finds it in its places, if there is room for
// that plan now, and not a good deal more; otherwise it goes, before anything else is taken.
std::optional<PlannedMemory> Scheduler::adopt_received(const LoadedModel& model) {
  std::optional<LastingWeights> weights = take_received(model.ref());
  if (!weights) return std::nullopt;
  Result<stream::Plan> plan = plan_received(model, *weights);
  if (!plan) {
    log::info("model {}: what was in memory before the start is of no use: {}", model.name(),
              plan.error().message);
    give_back(*weights);
    return std::nullopt;
  }
  log::info("model {}: {} are in memory from before the start", model.name(),
            format_size(weights->allocated_bytes()));
  return PlannedMemory{std::move(*plan), {}, std::move(weights), true};
}

Result<stream::Plan> Scheduler::plan_received(const LoadedModel& model,
                                              const LastingWeights& weights) {
  if (device_->arena() != nullptr) {
    return Unexpected(ErrorCode::kConfig, "the device has memory of its own now");
  }
  if (weights.info().plan_bytes > ram_budget_bytes_) {
    return Unexpected(ErrorCode::kConfig, "the RAM budget is smaller now");
  }
  AIRLLM_TRY(stream::Plan plan, ActiveModel::plan_of(model, weights));
  make_room_for({plan.slab_bytes, {}, 0});
  if (ram_left() < plan.slab_bytes) {
    return Unexpected(ErrorCode::kConfig, "other models leave too little of the RAM budget");
  }
  if (plan.streams() && ram_left() >= plan.slab_bytes + plan.slab_bytes / 4) {
    return Unexpected(ErrorCode::kConfig, "there is room for more of it now");
  }
  return plan;
}

std::optional<LastingWeights> Scheduler::take_received(const engine::ModelRef& ref) {
  const auto found = std::find_if(received_.begin(), received_.end(),
                                  [&](const auto& weights) { return weights.info().model == ref; });
  if (found == received_.end()) return std::nullopt;
  LastingWeights weights = std::move(*found);
  received_.erase(found);
  return weights;
}

void Scheduler::give_back(LastingWeights& weights) const {
  weights.discard();
  forget_lasting(weights.name());
}

// Gives back what was received of a model; its bytes, nothing when that was nothing.
std::optional<uint64_t> Scheduler::drop_received(const engine::ModelRef& ref) {
  std::optional<LastingWeights> weights = take_received(ref);
  if (!weights) return std::nullopt;
  give_back(*weights);
  log::event_happened(log::event::kModelReleased, {{log::kModelField, ref.name}},
                      "model {}: its memory is released", ref.name);
  return weights->bytes();
}

// One of those that the setting keeps, or does not keep; false when there is none.
bool Scheduler::drop_a_received(bool kept) {
  const auto found = std::find_if(received_.begin(), received_.end(), [&](const auto& weights) {
    return is_kept(weights.info().model) == kept;
  });
  if (found == received_.end()) return false;
  drop_received(engine::ModelRef(found->info().model));
  return true;
}

bool Scheduler::is_awaited(const engine::ModelRef& ref) const {
  return std::any_of(waiting_.begin(), waiting_.end(), [&](const auto& job) {
    return job->model()->ref() == ref && !job->is_finished();
  });
}

// A start counts as the last use.
Clock::time_point Scheduler::received_expiry(const LastingWeights& weights) const {
  const engine::ModelRef& ref = weights.info().model;
  const std::chrono::milliseconds keep_alive = keep_alive_.load();
  if (is_awaited(ref) || is_kept(ref) || keep_alive == kForever) return Clock::time_point::max();
  return started_ + keep_alive;
}

void Scheduler::publish_received(MemoryStatus& status) {
  for (const LastingWeights& weights : received_) {
    next_expiry_ = std::min(next_expiry_, received_expiry(weights));
    const LastingInfo& info = weights.info();
    status.models.push_back({.model = info.model,
                             .is_received = true,
                             .resident_bytes = weights.allocated_bytes(),
                             .ram_bytes = weights.bytes(),
                             .weight_bytes = info.sweep_bytes,
                             .streams = info.streams,
                             .is_in_use = is_awaited(info.model),
                             .is_kept = is_kept(info.model),
                             .keep_alive = keep_alive_.load(),
                             .idle_since = started_});
  }
}

void Scheduler::forget_lasting(const std::string& name) const {
  if (options_.memory_store != nullptr && !name.empty()) options_.memory_store->forget(name);
}

}  // namespace airllm::schedule

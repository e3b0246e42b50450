// The Scheduler's care for memory: which models keep theirs, which give it back, and what a smaller
// or larger budget makes of them.
#include <algorithm>
#include <utility>

#include "base/duration.h"
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
      ends.emplace_back(std::move(release.done), model_in_use(release.model->name()));
    } else if (is_running) {  // looked at again after the sweep
      const std::lock_guard lock(mutex_);
      releases_.push_back(std::move(release));
      change_noticed_ = true;
    } else {
      ends.emplace_back(std::move(release.done), drop(release.model));
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
    for (size_t at = 0; at < models_.size() && ram_in_use() > ram_budget_bytes_;) {
      const ActiveModel& model = *models_[at];
      const bool is_running = active_ == &model && !running_.empty();
      if (is_running || is_kept(model) != kept) {
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
  publish_memory();
}

// max() for a model that is in use or stays for ever.
Clock::time_point Scheduler::expiry(const ActiveModel& model) const {
  const bool is_running = active_ == &model && !running_.empty();
  const std::chrono::milliseconds keep_alive = keep_alive_of(model);
  if (is_running || is_wanted(model.model()) || is_kept(model) || keep_alive == kForever) {
    return Clock::time_point::max();
  }
  return model.idle_since() + keep_alive;
}

std::chrono::milliseconds Scheduler::keep_alive_of(const ActiveModel& model) const {
  return model.keep_alive().value_or(keep_alive_.load());
}

// The setting names shared models.
bool Scheduler::is_kept(const ActiveModel& model) const {
  const engine::ModelRef& ref = model.model()->ref();
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
    const auto victim = std::find_if(models_.begin(), models_.end(),
                                     [&](const auto& active) { return !is_kept(*active); });
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
  Result<ModelPlan> plan = ActiveModel::plan_within(*active_->model(), budget);
  if (!plan) {
    log::warning("model {}: stays as it is under memory pressure: {}", active_->model()->name(),
                 plan.error().message);
    return;
  }
  const std::shared_ptr<const LoadedModel> model = active_->model();
  const bool is_proven = active_->is_proven();
  std::unique_ptr<kv::KvPool> kv = active_->take_kv();
  drop(model);  // before the new plan's memory is taken
  alive();
  Result<std::unique_ptr<ActiveModel>> made = ActiveModel::create(
      model, *device_, std::move(*plan), kv, stream_options(), [this] { return while_waiting(); });
  if (!made) {
    log::error("model {}: {}", model->name(), made.error().message);
    return restart_running();
  }
  (*made)->set_shrunk(ram_budget_bytes_ < options_.ram_bytes);
  if (is_proven) (*made)->set_proven();
  models_.push_back(std::move(*made));
  active_ = models_.back().get();
  publish_memory();
}

}  // namespace airllm::schedule

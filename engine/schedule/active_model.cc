#include "engine/schedule/active_model.h"

#include "base/event.h"
#include "base/units.h"

namespace airllm::schedule {
namespace {

stream::PlanInput plan_input(const LoadedModel& model) {
  return {&model.architecture(), model.stored.shards};
}

}  // namespace

uint64_t ActiveModel::full_ram_bytes(const LoadedModel& model) {
  return stream::full_budget_bytes(plan_input(model));
}

Result<std::unique_ptr<ActiveModel>> ActiveModel::create(
    std::shared_ptr<const LoadedModel> model, stream::Device& device, uint64_t ram_bytes,
    uint64_t kv_bytes, const stream::StreamOptions& stream_options,
    std::function<Status()> interrupted) {
  AIRLLM_TRY(stream::Plan plan, plan_within(*model, ram_bytes));
  AIRLLM_TRY(std::unique_ptr<kv::KvPool> kv,
             kv::KvPool::create(model::kv_shape(model->architecture()), kv_bytes));
  return create(std::move(model), device, std::move(plan), kv, stream_options,
                std::move(interrupted));
}

Result<stream::Plan> ActiveModel::plan_within(const LoadedModel& model, uint64_t ram_bytes) {
  return stream::make_plan(plan_input(model), ram_bytes);
}

Result<std::unique_ptr<ActiveModel>> ActiveModel::create(
    std::shared_ptr<const LoadedModel> model, stream::Device& device, stream::Plan plan,
    std::unique_ptr<kv::KvPool>& kv, const stream::StreamOptions& stream_options,
    std::function<Status()> interrupted) {
  std::unique_ptr<ActiveModel> active(new ActiveModel(std::move(model), std::move(plan)));
  const model::Architecture& architecture = active->model_->architecture();
  AIRLLM_TRY(active->slab_, device.allocate(active->plan_.slab_bytes));
  active->kv_ = std::move(kv);
  const stream::Plan& stable = active->plan_;
  active->weights_ = std::make_unique<stream::WeightStream>(
      stable, active->model_->stored.shards, active->slab_.memory(), device.backend(),
      stream_options, std::move(interrupted));
  if (stream_options.reader == stream::ReaderKind::kUring && active->weights_->uring_problem()) {
    Error error = *active->weights_->uring_problem();
    error.remedy = "set reader to auto or threads, or see what 'airllm doctor' says of io_uring";
    return Unexpected(std::move(error));
  }
  active->forward_ = std::make_unique<model::ForwardPass>(
      architecture, device.backend(), device.pool(), stable.limits,
      active->slab_.memory().first(stable.workspace_bytes));
  log::event_happened(log::event::kModelLoaded, {{log::kModelField, active->model_->name()}},
                      "model {}: {} of RAM, {} of {} pinned, ring of {} x {}, {} rows per sweep",
                      active->model_->name(), format_size(stable.slab_bytes),
                      format_size(stable.pinned_bytes()), format_size(active->sweep_bytes_),
                      stable.ring_slots, format_size(stable.ring_slot_bytes), stable.limits.rows);
  return active;
}

bool ActiveModel::stop(std::chrono::milliseconds patience) {
  forward_.reset();
  kv_.reset();
  if (weights_->stop_reading(patience)) return true;
  std::byte* at = slab_.memory().data();
  std::byte* const end = at + slab_.memory().size();
  for (const std::span<std::byte> kept : weights_->memory_being_read()) {
    slab_.discard({at, kept.data()});
    at = kept.data() + kept.size();
  }
  slab_.discard({at, end});
  return false;
}

}  // namespace airllm::schedule

#include "engine/schedule/active_model.h"

#include "base/event.h"
#include "base/units.h"

namespace airllm::schedule {
namespace {

stream::PlanInput plan_input(const LoadedModel& model, const ModelBudget& budget) {
  stream::PlanInput input{&model.architecture(), model.stored.shards};
  if (budget.vram_bytes) input.host_bytes = budget.ram_bytes;
  return input;
}

Result<std::unique_ptr<kv::KvPool>> make_kv(const LoadedModel& model, stream::Device& device,
                                            const ModelBudget& budget) {
  const kv::KvShape shape = model::kv_shape(model.architecture());
  if (device.arena() == nullptr) return kv::KvPool::create(shape, budget.kv_bytes);
  AIRLLM_TRY(stream::ArenaBlock block, device.arena()->allocate(budget.device_kv_bytes()));
  auto owner = std::make_shared<stream::ArenaBlock>(std::move(block));
  const std::span<std::byte> memory = owner->memory();
  return kv::KvPool::create_in(shape, memory, std::move(owner));
}

}  // namespace

ModelBudget ActiveModel::full_budget(const LoadedModel& model, const ModelBudget& limits) {
  const stream::PlanInput input = plan_input(model, limits);
  const uint64_t full = stream::full_budget_bytes(input);
  if (!limits.vram_bytes) return {full, {}, limits.kv_bytes};
  const uint64_t kv = limits.device_kv_bytes();
  const uint64_t weights = std::min(full, *limits.vram_bytes - kv);
  const Result<stream::Plan> plan = stream::make_plan(input, weights);
  const uint64_t ram = plan ? stream::full_host_budget_bytes(input, *plan) : 0;
  return {ram, weights + kv, limits.kv_bytes};
}

Result<std::unique_ptr<ActiveModel>> ActiveModel::create(
    std::shared_ptr<const LoadedModel> model, stream::Device& device, const ModelBudget& budget,
    const stream::StreamOptions& stream_options, std::function<Status()> interrupted) {
  ModelBudget for_weights = budget;
  if (budget.vram_bytes) for_weights.vram_bytes = *budget.vram_bytes - budget.device_kv_bytes();
  AIRLLM_TRY(ModelPlan plan, plan_within(*model, for_weights));
  AIRLLM_TRY(std::unique_ptr<kv::KvPool> kv, make_kv(*model, device, budget));
  return create(std::move(model), device, std::move(plan), kv, stream_options,
                std::move(interrupted));
}

Result<ModelPlan> ActiveModel::plan_within(const LoadedModel& model, const ModelBudget& budget) {
  const stream::PlanInput input = plan_input(model, budget);
  ModelPlan plan;
  if (!budget.vram_bytes) {
    AIRLLM_TRY(plan.plan, stream::make_plan(input, budget.ram_bytes));
    return plan;
  }
  AIRLLM_TRY(plan.plan, stream::make_plan(input, *budget.vram_bytes));
  AIRLLM_TRY(plan.host, stream::make_host_plan(input, plan.plan, budget.ram_bytes));
  return plan;
}

Result<std::unique_ptr<ActiveModel>> ActiveModel::create(
    std::shared_ptr<const LoadedModel> model, stream::Device& device, ModelPlan plan,
    std::unique_ptr<kv::KvPool>& kv, const stream::StreamOptions& stream_options,
    std::function<Status()> interrupted) {
  std::unique_ptr<ActiveModel> active(new ActiveModel(std::move(model), std::move(plan)));
  const model::Architecture& architecture = active->model_->architecture();
  const ModelPlan& stable = active->plan_;
  AIRLLM_TRY(active->slab_, device.allocate(stable.ram_bytes()));
  std::span<std::byte> memory = active->slab_.memory();
  std::optional<stream::HostSide> host;
  if (stable.host) {
    AIRLLM_TRY(active->device_memory_, device.arena()->allocate(stable.plan.slab_bytes));
    host = stream::HostSide{device.arena(), &*stable.host, memory};
    memory = active->device_memory_.memory();
  }
  active->kv_ = std::move(kv);
  active->weights_ = std::make_unique<stream::WeightStream>(
      stable.plan, active->model_->stored.shards, memory, device.backend(), stream_options,
      std::move(interrupted), host ? &*host : nullptr);
  if (stream_options.reader == stream::ReaderKind::kUring && active->weights_->uring_problem()) {
    Error error = *active->weights_->uring_problem();
    error.remedy = "set reader to auto or threads, or see what 'airllm doctor' says of io_uring";
    return Unexpected(std::move(error));
  }
  active->forward_ = std::make_unique<model::ForwardPass>(
      architecture, device.backend(), device.pool(), stable.plan.limits,
      memory.first(stable.plan.workspace_bytes),
      stable.host ? *device.arena() : model::host_memory());
  active->log_loaded();
  return active;
}

void ActiveModel::log_loaded() const {
  const stream::Plan& plan = plan_.plan;
  std::string text = format_size(ram_bytes()) + " of RAM";
  if (plan_.host) {
    text += ", which keeps " + format_size(plan_.host->kept_bytes(plan.list)) + "; " +
            format_size(vram_bytes()) + " of the device's";
  }
  log::event_happened(log::event::kModelLoaded, {{log::kModelField, model_->name()}},
                      "model {}: {}, {} of {} pinned, ring of {} x {}, {} rows per sweep",
                      model_->name(), text, format_size(plan.pinned_bytes()),
                      format_size(sweep_bytes_), plan.ring_slots, format_size(plan.ring_slot_bytes),
                      plan.limits.rows);
}

bool ActiveModel::reads() const {
  if (!plan_.host) return plan().streams();
  for (size_t i = 0; i < plan().list.tiles.size(); ++i) {
    const bool is_kept = plan_.host->kept_offset[i] != stream::Plan::kStreamed;
    if (plan().pinned_offset[i] == stream::Plan::kStreamed && !is_kept) return true;
  }
  return false;
}

bool ActiveModel::stop(std::chrono::milliseconds patience) {
  forward_.reset();
  kv_.reset();
  const bool is_unused = weights_->stop_reading(patience);
  device_memory_ = {};
  if (is_unused) return true;
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

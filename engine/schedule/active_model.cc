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

Result<std::unique_ptr<kv::KvPool>> ActiveModel::make_kv(const LoadedModel& model,
                                                         stream::Device& device,
                                                         const ModelBudget& budget) {
  const kv::KvShape shape = model::kv_shape(model.architecture());
  if (device.arena() == nullptr) return kv::KvPool::create(shape, budget.kv_bytes);
  AIRLLM_TRY(stream::ArenaBlock block, device.arena()->allocate(budget.device_kv_bytes()));
  auto owner = std::make_shared<stream::ArenaBlock>(std::move(block));
  const std::span<std::byte> memory = owner->memory();
  return kv::KvPool::create_in(shape, memory, std::move(owner));
}

Result<PlannedMemory> ActiveModel::plan_memory(const LoadedModel& model, const ModelBudget& budget,
                                               const Budgets& defaults) {
  const stream::PlanInput input = plan_input(model, budget);
  PlannedMemory memory;
  if (budget.vram_bytes) {
    AIRLLM_TRY(memory.plan, stream::make_plan(input, *budget.vram_bytes));
    AIRLLM_TRY(memory.host, stream::make_host_plan(input, memory.plan, budget.ram_bytes));
    return memory;
  }
  AIRLLM_TRY(memory.plan, stream::make_plan(input, budget.ram_bytes));
  const stream::Plan& plan = memory.plan;
  LastingInfo info;
  info.model = model.ref();
  info.layout = layout_hash(model, plan);
  info.sweep_bytes = plan.list.total_bytes();
  info.streams = plan.streams();
  info.defaults = defaults;
  // A smaller budget may do at the next start: what the plan uses of this one, if that makes it
  // too.
  const Result<stream::Plan> again = stream::make_plan(input, plan.slab_bytes);
  const bool is_same = again && layout_hash(model, *again) == info.layout;
  info.plan_bytes = is_same ? plan.slab_bytes : budget.ram_bytes;
  AIRLLM_TRY(memory.lasting, LastingWeights::create(plan.lasting_bytes(), std::move(info)));
  return memory;
}

Result<stream::Plan> ActiveModel::plan_of(const LoadedModel& model, const LastingWeights& weights) {
  const LastingInfo& info = weights.info();
  const stream::PlanInput input{&model.architecture(), model.stored.shards};
  AIRLLM_TRY(stream::Plan plan, stream::make_plan(input, info.plan_bytes));
  if (plan.lasting_bytes() != weights.bytes() || layout_hash(model, plan) != info.layout) {
    return Unexpected(ErrorCode::kData, "the model or its plan is another now");
  }
  return plan;
}

Result<std::unique_ptr<ActiveModel>> ActiveModel::create(std::shared_ptr<const LoadedModel> model,
                                                         stream::Device& device,
                                                         PlannedMemory planned,
                                                         std::unique_ptr<kv::KvPool>& kv,
                                                         stream::StreamOptions stream_options,
                                                         std::function<Status()> interrupted) {
  std::optional<LastingWeights> lasting = std::move(planned.lasting);
  stream_options.is_adopted = planned.is_adopted;
  std::unique_ptr<ActiveModel> active(new ActiveModel(std::move(model), std::move(planned)));
  const model::Architecture& architecture = active->model_->architecture();
  const PlannedMemory& stable = active->planned_;
  const uint64_t lasting_bytes = lasting ? stable.plan.lasting_bytes() : 0;
  if (lasting_bytes > 0) active->lasting_name_ = lasting->name();
  AIRLLM_TRY(active->slab_,
             device.allocate(stable.ram_bytes() - lasting_bytes,
                             lasting ? lasting->take_fd() : UniqueFd(), lasting_bytes));
  std::span<std::byte> memory = active->slab_.memory();
  std::optional<stream::HostSide> host;
  if (stable.host) {
    AIRLLM_TRY(active->device_memory_, device.arena()->allocate(stable.plan.slab_bytes));
    host = stream::HostSide{device.arena(), &*stable.host, memory};
    memory = active->device_memory_.memory();
  }
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
  active->kv_ = std::move(kv);
  active->log_loaded();
  return active;
}

void ActiveModel::log_loaded() const {
  const stream::Plan& plan = planned_.plan;
  std::string text = format_size(ram_bytes()) + " of RAM";
  if (planned_.host) {
    text += ", which keeps " + format_size(planned_.host->kept_bytes(plan.list)) + "; " +
            format_size(vram_bytes()) + " of the device's";
  }
  log::event_happened(log::event::kModelLoaded, {{log::kModelField, model_->name()}},
                      "model {}: {}, {} of {} pinned, ring of {} x {}, {} rows per sweep",
                      model_->name(), text, format_size(plan.pinned_bytes()),
                      format_size(sweep_bytes_), plan.ring_slots, format_size(plan.ring_slot_bytes),
                      plan.limits.rows);
}

bool ActiveModel::reads() const {
  const uint64_t kept = planned_.host ? planned_.host->kept_bytes(plan().list) : 0;
  return plan().pinned_bytes() + kept < sweep_bytes_;
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

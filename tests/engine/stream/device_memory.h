// A simulated device, and what a plan takes of its memory and of the host's beside it.
#pragma once

#include <memory>

#include "engine/stream/arena.h"
#include "engine/stream/host_tier.h"
#include "engine/stream/simulated_device.h"
#include "engine/stream/weight_stream.h"

namespace airllm::testing {

// Outlives the stream that uses it.
struct DeviceMemory {
  // `plan` is one of `input` for `vram_bytes`, and input.host_bytes is what the host gives.
  DeviceMemory(const stream::PlanInput& input, const stream::Plan& plan, uint64_t vram_bytes,
               uint64_t bus_bytes_per_second = 0)
      : device(stream::make_simulated_device(kernels::scalar_backend(), 1,
                                             {vram_bytes, bus_bytes_per_second})),
        host_plan(*stream::make_host_plan(input, plan, *input.host_bytes)),
        block(*arena().allocate(plan.slab_bytes)),
        slab(*device->allocate(host_plan.memory_bytes, UniqueFd(), 0)) {}

  stream::Arena& arena() const { return *device->arena(); }
  stream::HostSide host() { return {&arena(), &host_plan, slab.memory()}; }

  std::unique_ptr<stream::Device> device;
  stream::HostPlan host_plan;
  stream::ArenaBlock block;
  stream::Slab slab;
};

}  // namespace airllm::testing

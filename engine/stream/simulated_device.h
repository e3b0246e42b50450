// A device with memory of its own where there is none: host memory of a fixed size, copies at the
// speed of a bus, the CPU's kernels. What is true of three tiers can be tested on it.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/stream/device.h"

namespace airllm::stream {

struct SimulatedDeviceOptions {
  uint64_t arena_bytes = 0;
  uint64_t bus_bytes_per_second = 0;  // 0: as fast as memory can be copied
  // The host may touch the arena no more than it may touch a GPU's: but for operations and copies,
  // that is a segmentation fault. Costs time with each operation.
  bool is_guarded = false;
};

// `threads` as in kernels::ThreadPool.
std::unique_ptr<Device> make_simulated_device(const kernels::Backend& backend, unsigned threads,
                                              const SimulatedDeviceOptions& options);

}  // namespace airllm::stream

// Memory budgets from what the machine has free and what the cgroup allows.
#pragma once

#include <cstdint>

namespace airllm::schedule {

// Bytes that this process may still take: MemAvailable, or less where a cgroup (v2 or v1) limits
// it.
uint64_t available_memory_bytes();

// Half of that for weights, an eighth for keys and values; the rest stays free for others.
uint64_t default_ram_bytes(uint64_t available_bytes);
uint64_t default_kv_bytes(uint64_t available_bytes);

// Cores that this process may run on.
unsigned available_cores();

}  // namespace airllm::schedule

// Memory budgets from what the machine has free and what the cgroup allows.
#pragma once

#include <cstdint>
#include <limits>

namespace airllm::schedule {

// What there is when a budget is made.
struct FreeMemory {
  static constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

  uint64_t total_bytes = 0;            // MemTotal; 0: unknown
  uint64_t available_bytes = 0;        // MemAvailable
  uint64_t cgroup_bytes = kUnlimited;  // what the cgroups' limits (v2 or v1) leave
};

// As /proc and the cgroups of this process say; a GiB available where they say nothing.
FreeMemory free_memory();

// Half of what this process may still take for weights, an eighth for keys and values; both less
// when that would leave less than a quarter of the machine's memory free. At least 16 MiB each.
uint64_t default_ram_bytes(const FreeMemory& memory);
uint64_t default_kv_bytes(const FreeMemory& memory);

// Cores that this process may run on.
unsigned available_cores();

}  // namespace airllm::schedule

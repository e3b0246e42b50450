// Memory budgets from what the machine has free and what the cgroup allows.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace airllm::schedule {

// What there is when a budget is made.
struct FreeMemory {
  static constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

  uint64_t total_bytes = 0;            // MemTotal; 0: unknown
  uint64_t available_bytes = 0;        // MemAvailable
  uint64_t cgroup_bytes = kUnlimited;  // what the cgroups' limits (v2 or v1) leave

  // Of the machine's memory, what budgets leave to others.
  uint64_t others_bytes() const { return total_bytes / 4; }
};

// As /proc and the cgroups of this process say; a GiB available where they say nothing. As if
// `received_bytes`, which an earlier process has left to this one, were free.
FreeMemory free_memory(uint64_t received_bytes = 0);

struct Budgets {
  uint64_t ram_bytes = 0;
  uint64_t kv_bytes = 0;

  uint64_t sum() const { return ram_bytes + kv_bytes; }
  bool operator==(const Budgets&) const = default;
};

// Half of what this process may still take for weights, an eighth for keys and values; both less
// when that would leave little more than a quarter of the machine's memory free. At least 16 MiB
// each. What one of the processes before had as a default is the default again while it still
// leaves that quarter and is about the same: what else goes on in the machine then changes no plan
// between two starts.
Budgets default_budgets(const FreeMemory& memory, std::span<const Budgets> former = {});

// Cores that this process may run on.
unsigned available_cores();

}  // namespace airllm::schedule

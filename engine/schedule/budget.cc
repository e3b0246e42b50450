#include "engine/schedule/budget.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include "base/units.h"

namespace airllm::schedule {
namespace {

constexpr uint64_t kUnlimited = FreeMemory::kUnlimited;
constexpr uint64_t kLeastBytes = 16 * kMiB;

std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// AIRLLM_DEBUG_MEMINFO names a file in place of the kernel's.
std::string meminfo_path() {
  const char* const path = std::getenv("AIRLLM_DEBUG_MEMINFO");  // NOLINT(concurrency-mt-unsafe)
  return path == nullptr ? "/proc/meminfo" : path;
}

FreeMemory read_meminfo() {
  FreeMemory memory;
  memory.available_bytes = kGiB;
  std::ifstream file(meminfo_path());
  std::string key;
  uint64_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    if (key == "MemTotal:") memory.total_bytes = kib * kKiB;
    if (key == "MemAvailable:") memory.available_bytes = kib * kKiB;
    std::getline(file, unit);
  }
  return memory;
}

// limit - use of one cgroup folder; kUnlimited without a limit. The received memory is part of the
// use, or of that of an earlier cgroup.
uint64_t cgroup_room(const std::string& limit_path, const std::string& use_path,
                     uint64_t received_bytes) {
  const std::optional<uint64_t> limit = read_number(limit_path);
  const std::optional<uint64_t> use = read_number(use_path);
  if (!limit || !use) return kUnlimited;
  return *limit - std::min(*limit, *use - std::min(*use, received_bytes));
}

// The least room along the path of cgroups that this process is in.
uint64_t cgroup_available(uint64_t received_bytes) {
  std::ifstream file("/proc/self/cgroup");
  uint64_t room = kUnlimited;
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool is_v2 = controllers.empty();
    if (!is_v2 && controllers != "memory") continue;
    const std::string root = is_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (;;) {
      const std::string base = root + path;
      room = std::min(
          room, is_v2 ? cgroup_room(base + "/memory.max", base + "/memory.current", received_bytes)
                      : cgroup_room(base + "/memory.limit_in_bytes",
                                    base + "/memory.usage_in_bytes", received_bytes));
      const size_t slash = path.rfind('/');
      if (path.size() <= 1 || slash == std::string::npos) break;
      path.erase(slash == 0 ? 1 : slash);
    }
  }
  return room;
}

// Weights, keys and values together.
uint64_t default_bytes(const FreeMemory& memory) {
  const uint64_t usable = std::min(memory.available_bytes, memory.cgroup_bytes);
  // Some more than the quarter, so that the same budget is right at the next start, too.
  const uint64_t rest = memory.others_bytes() + memory.total_bytes / 64;
  const uint64_t spare = memory.available_bytes - std::min(memory.available_bytes, rest);
  return std::min(usable / 8 * 5, spare);
}

Budgets fresh_budgets(const FreeMemory& memory) {
  const uint64_t bytes = default_bytes(memory);
  return {std::max(bytes / 5 * 4, kLeastBytes), std::max(bytes / 5, kLeastBytes)};
}

uint64_t difference(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

// Whether the budgets of an earlier start, such as `fresh` ones, are right now, too.
bool still_right(const Budgets& former, const Budgets& fresh, const FreeMemory& memory) {
  constexpr uint64_t kMostBytes = uint64_t{1} << 60;
  if (former.ram_bytes < kLeastBytes || former.kv_bytes < kLeastBytes) return false;
  if (former.ram_bytes > kMostBytes || former.kv_bytes > kMostBytes) return false;
  const uint64_t usable = std::min(memory.available_bytes, memory.cgroup_bytes);
  const uint64_t noise = usable / 32;
  if (difference(former.ram_bytes, fresh.ram_bytes) > noise) return false;
  if (difference(former.kv_bytes, fresh.kv_bytes) > noise) return false;
  return former.sum() <= usable && memory.available_bytes - former.sum() >= memory.others_bytes();
}

}  // namespace

FreeMemory free_memory(uint64_t received_bytes) {
  FreeMemory memory = read_meminfo();
  memory.available_bytes += received_bytes;
  memory.cgroup_bytes = cgroup_available(received_bytes);
  return memory;
}

Budgets default_budgets(const FreeMemory& memory, std::span<const Budgets> former) {
  const Budgets fresh = fresh_budgets(memory);
  Budgets nearest = fresh;
  uint64_t distance = FreeMemory::kUnlimited;
  for (const Budgets& one : former) {
    if (!still_right(one, fresh, memory)) continue;
    if (difference(one.sum(), fresh.sum()) >= distance) continue;
    nearest = one;
    distance = difference(one.sum(), fresh.sum());
  }
  return nearest;
}

unsigned available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  }
  return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace airllm::schedule

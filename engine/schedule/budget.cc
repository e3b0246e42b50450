#include "engine/schedule/budget.h"

#include <sched.h>

#include <algorithm>
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

FreeMemory read_meminfo() {
  FreeMemory memory;
  memory.available_bytes = kGiB;
  std::ifstream file("/proc/meminfo");
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

// limit - use of one cgroup folder; kUnlimited without a limit.
uint64_t cgroup_room(const std::string& limit_path, const std::string& use_path) {
  const std::optional<uint64_t> limit = read_number(limit_path);
  const std::optional<uint64_t> use = read_number(use_path);
  if (!limit || !use) return kUnlimited;
  return *limit > *use ? *limit - *use : 0;
}

// The least room along the path of cgroups that this process is in.
uint64_t cgroup_available() {
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
      room = std::min(room, is_v2 ? cgroup_room(base + "/memory.max", base + "/memory.current")
                                  : cgroup_room(base + "/memory.limit_in_bytes",
                                                base + "/memory.usage_in_bytes"));
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
  const uint64_t spare =
      memory.available_bytes - std::min(memory.available_bytes, memory.total_bytes / 4);
  return std::min(usable / 8 * 5, spare);
}

}  // namespace

FreeMemory free_memory() {
  FreeMemory memory = read_meminfo();
  memory.cgroup_bytes = cgroup_available();
  return memory;
}

uint64_t default_ram_bytes(const FreeMemory& memory) {
  return std::max(default_bytes(memory) / 5 * 4, kLeastBytes);
}

uint64_t default_kv_bytes(const FreeMemory& memory) {
  return std::max(default_bytes(memory) / 5, kLeastBytes);
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

#include "engine/schedule/memory_pressure.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "base/units.h"
#include "engine/schedule/budget.h"

namespace airllm::schedule {
namespace {

constexpr std::chrono::milliseconds kInterval = std::chrono::seconds(2);
constexpr std::chrono::milliseconds kDebugInterval = std::chrono::milliseconds(20);

// Tasks wait for memory so often: a tenth of the time some, or a fiftieth all, which is long before
// the OOM killer looks. A busy disk alone makes neither.
constexpr double kSomeIsHigh = 10;
constexpr double kFullIsHigh = 2;
constexpr double kSomeIsCalm = 1;

// The averages need ten seconds to show what a smaller budget has done.
constexpr auto kBetweenSteps = std::chrono::seconds(10);
constexpr auto kCalm = std::chrono::seconds(60);
constexpr auto kBetweenGrowths = std::chrono::seconds(30);
constexpr uint64_t kLeastShare = 8;
constexpr uint64_t kGrowthShare = 16;

// The number behind "avg10=" in a line such as "some avg10=0.12 avg60=0.00 avg300=0.00 total=5".
std::optional<double> avg10_of(std::string_view line) {
  constexpr std::string_view kKey = " avg10=";
  const size_t at = line.find(kKey);
  if (at == line.npos) return std::nullopt;
  const char* const begin = line.data() + at + kKey.size();
  const char* const end = line.data() + line.size();
  double value = 0;
  if (std::from_chars(begin, end, value, std::chars_format::fixed).ec != std::errc()) {
    return std::nullopt;
  }
  return value >= 0 && value <= 100 ? std::optional(value) : std::nullopt;
}

// AIRLLM_DEBUG_PRESSURE names a file in place of the kernel's. Empty: none.
std::string debug_path() {
  const char* const path = std::getenv("AIRLLM_DEBUG_PRESSURE");  // NOLINT(concurrency-mt-unsafe)
  return path == nullptr ? std::string() : std::string(path);
}

std::vector<PressureFile> pressure_files() {
  if (std::string debug = debug_path(); !debug.empty()) return {{std::move(debug), false}};
  std::vector<PressureFile> files{{"/proc/pressure/memory", true}};
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::/")) continue;  // v2: the others have no pressure
    files.push_back({"/sys/fs/cgroup" + line.substr(3) + "/memory.pressure", false});
  }
  return files;
}

std::string describe(const Pressure& pressure) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "some %.1f %%, full %.1f %%", pressure.some_avg10,
                pressure.full_avg10);
  return text.data();
}

}  // namespace

std::optional<Pressure> parse_pressure(std::string_view text) {
  Pressure pressure;
  bool has_some = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const bool is_some = line.starts_with("some ");
    if (!is_some && !line.starts_with("full ")) continue;
    const std::optional<double> share = avg10_of(line);
    if (!share) return std::nullopt;
    (is_some ? pressure.some_avg10 : pressure.full_avg10) = *share;
    has_some = has_some || is_some;
  }
  return has_some ? std::optional(pressure) : std::nullopt;
}

bool is_short(const FreeMemory& memory, uint64_t full_bytes) {
  return memory.total_bytes == 0 || memory.available_bytes < memory.others_bytes() ||
         memory.cgroup_bytes < full_bytes / kGrowthShare;
}

BudgetPolicy::BudgetPolicy(uint64_t full_bytes)
    : full_bytes_(full_bytes), budget_bytes_(full_bytes) {}

uint64_t BudgetPolicy::take(const Pressure& pressure, uint64_t available_bytes,
                            Clock::time_point now) {
  const bool is_high = pressure.some_avg10 >= kSomeIsHigh || pressure.full_avg10 >= kFullIsHigh;
  if (is_high || pressure.some_avg10 > kSomeIsCalm) last_pressure_ = now;
  const auto is_past = [now](const auto& time, auto wait) { return !time || now - *time >= wait; };
  if (is_high && is_past(last_change_, kBetweenSteps)) {
    const uint64_t smaller = std::max(budget_bytes_ - budget_bytes_ / 4, full_bytes_ / kLeastShare);
    if (smaller < budget_bytes_) {
      budget_bytes_ = smaller;
      last_change_ = now;
    }
  }
  const uint64_t step = full_bytes_ / kGrowthShare;
  const bool may_grow = budget_bytes_ < full_bytes_ && is_past(last_pressure_, kCalm) &&
                        is_past(last_change_, kBetweenGrowths) && available_bytes / 2 >= step;
  if (may_grow) {
    budget_bytes_ += std::min(step, full_bytes_ - budget_bytes_);
    last_change_ = now;
  }
  return budget_bytes_;
}

PressureWatch::PressureWatch(uint64_t full_bytes, OnBudget on_budget)
    : interval_(debug_path().empty() ? kInterval : kDebugInterval),
      files_(pressure_files()),
      policy_(full_bytes),
      on_budget_(std::move(on_budget)),
      thread_([this](const std::stop_token& stop) { loop(stop); }) {}

PressureWatch::~PressureWatch() {
  thread_.request_stop();
  thread_.join();
}

void PressureWatch::loop(const std::stop_token& stop) {
  if (!read(true)) return;
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    look();
    changed_.wait_for(lock, stop, interval_, [] { return false; });
  }
}

void PressureWatch::look() {
  const FreeMemory memory = free_memory();
  const std::optional<Pressure> pressure = read(is_short(memory, policy_.full_bytes()));
  if (!pressure) return;
  const uint64_t before = policy_.budget_bytes();
  const uint64_t budget =
      policy_.take(*pressure, std::min(memory.available_bytes, memory.cgroup_bytes), Clock::now());
  if (budget == before) return;
  const char* const why = budget < before ? "tasks wait for memory" : "memory is free again";
  on_budget_(budget, std::string(why) + " (" + describe(*pressure) + ")");
}

std::optional<Pressure> PressureWatch::read(bool is_machine_short) const {
  std::optional<Pressure> most;
  for (const PressureFile& source : files_) {
    std::ifstream file(source.path);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::optional<Pressure> pressure = parse_pressure(text);
    if (!pressure) continue;
    if (!most) most.emplace();
    if (source.is_of_machine && !is_machine_short) continue;
    most->some_avg10 = std::max(most->some_avg10, pressure->some_avg10);
    most->full_avg10 = std::max(most->full_avg10, pressure->full_avg10);
  }
  return most;
}

}  // namespace airllm::schedule

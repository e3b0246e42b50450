#include "engine/schedule/kernel_bench.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/json.h"
#include "base/units.h"
#include "engine/schedule/bench_result.h"
#include "engine/schedule/budget.h"
#include "kernels/operation_set.h"

namespace airllm::schedule {
namespace {

using kernels::MeasuredOperation;

// Larger than any level-3 cache of a machine with so much to spare, which is never more than a
// share of what is free.
constexpr uint64_t kMostMemory = 512 * kMiB;
constexpr uint64_t kLeastMemory = 16 * kMiB;
constexpr uint64_t kMemoryShare = 4;
// A short call is repeated for so long.
constexpr auto kLeastTime = std::chrono::milliseconds(10);

uint64_t memory_bytes() {
  const FreeMemory memory = free_memory();
  const uint64_t free = std::min(memory.available_bytes, memory.cgroup_bytes);
  return round_down(std::clamp(free / kMemoryShare, kLeastMemory, kMostMemory), kMiB);
}

// Seconds of a call.
double time_of(const MeasuredOperation& operation) {
  const Clock::time_point start = Clock::now();
  Clock::time_point now = start;
  unsigned calls = 0;
  do {
    operation.run();
    ++calls;
    now = Clock::now();
  } while (now - start < kLeastTime);
  return std::chrono::duration<double>(now - start).count() / calls;
}

// What the rounds have measured of one operation, and beside it.
struct Figures {
  std::vector<double> seconds, of_memory, of_peak;
};

Json spread_json(const std::vector<double>& values) {
  const Spread spread = spread_of(values);
  return {{"median", spread.median}, {"min", spread.least}, {"max", spread.most}};
}

class KernelBench {
 public:
  KernelBench(const kernels::Backend& backend, const engine::KernelBenchRequest& request,
              const BenchTools& tools, engine::JobEvents& events, const JobRecord& record)
      : backend_(backend),
        request_(request),
        tools_(tools),
        events_(events),
        record_(record),
        memory_bytes_(memory_bytes()),
        pool_(tools.threads),
        set_(backend, pool_, memory_bytes_),
        figures_(set_.operations().size()) {}

  Result<Json> run() {
    for (uint64_t round = 0; round < request_.rounds; ++round) {
      events_.on_progress({"bench", round, request_.rounds, "rounds"});
      for (size_t i = 0; i < figures_.size(); ++i) {
        if (record_.is_cancelled()) return Unexpected(ErrorCode::kCancelled, "cancelled");
        other_jobs_ = std::max(other_jobs_, tools_.count_other_jobs());
        measure(set_.operations()[i], figures_[i]);
      }
    }
    return result();
  }

 private:
  // The limits right before, since a shared machine changes from second to second.
  void measure(const MeasuredOperation& operation, Figures& figures) {
    if (!has_limits(operation)) {
      figures.seconds.push_back(time_of(operation));
      return;
    }
    memory_rates_.push_back(rate(set_.memory_read().bytes, time_of(set_.memory_read())));
    peaks_.push_back(rate(set_.peak().flop, time_of(set_.peak())));
    const double seconds = time_of(operation);
    figures.seconds.push_back(seconds);
    figures.of_memory.push_back(rate(operation.bytes, seconds) / memory_rates_.back());
    figures.of_peak.push_back(rate(operation.flop, seconds) / peaks_.back());
  }

  // What counts no operations works on rows alone, which caches hold.
  static bool has_limits(const MeasuredOperation& operation) { return operation.flop > 0; }

  static double rate(uint64_t amount, double seconds) {
    return over(static_cast<double>(amount), seconds);
  }

  Json result() const {
    Json operations = Json::array();
    for (size_t i = 0; i < figures_.size(); ++i) {
      operations.push_back(json_of(set_.operations()[i], figures_[i]));
    }
    return {{"backend", backend_.name},
            {"threads", tools_.threads},
            {"rounds", request_.rounds},
            {"memory_bytes", memory_bytes_},
            {"memory_bytes_per_second", whole(spread_of(memory_rates_).median)},
            {"peak_flop_per_second", whole(spread_of(peaks_).median)},
            {"other_jobs", other_jobs_},
            {"operations", std::move(operations)}};
  }

  static Json json_of(const MeasuredOperation& operation, const Figures& figures) {
    const double seconds = spread_of(figures.seconds).median;
    Json json{{"operation", operation.name},
              {"format", nullptr},
              {"rows", operation.rows},
              {"seconds", seconds},
              {"bytes", operation.bytes},
              {"bytes_per_second", whole(rate(operation.bytes, seconds))},
              {"flop", nullptr},
              {"flop_per_second", nullptr},
              {"of_memory", nullptr},
              {"of_peak", nullptr}};
    if (operation.format) json["format"] = kernels::number_format_name(*operation.format);
    if (operation.positions > 0) json["positions"] = operation.positions;
    if (!has_limits(operation)) return json;
    json["flop"] = operation.flop;
    json["flop_per_second"] = whole(rate(operation.flop, seconds));
    json["of_memory"] = spread_json(figures.of_memory);
    json["of_peak"] = spread_json(figures.of_peak);
    return json;
  }

  const kernels::Backend& backend_;
  const engine::KernelBenchRequest& request_;
  const BenchTools& tools_;
  engine::JobEvents& events_;
  const JobRecord& record_;
  const uint64_t memory_bytes_;
  kernels::ThreadPool pool_;
  const kernels::OperationSet set_;
  std::vector<Figures> figures_;  // by operation
  std::vector<double> memory_rates_, peaks_;
  uint64_t other_jobs_ = 0;
};

}  // namespace

Result<Json> run_bench_kernels(const kernels::Backend& backend,
                               const engine::KernelBenchRequest& request, const BenchTools& tools,
                               engine::JobEvents& events,
                               const std::shared_ptr<JobRecord>& record) {
  record->update([](engine::JobInfo& info) { info.state = "queued"; });
  AIRLLM_TRY_VOID(tools.turns.take(record->stop_token()));
  record->update([](engine::JobInfo& info) { info.state = "running"; });
  Result<Json> result = KernelBench(backend, request, tools, events, *record).run();
  tools.turns.give_back(nullptr);
  return result;
}

}  // namespace airllm::schedule

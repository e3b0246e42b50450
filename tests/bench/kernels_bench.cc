// The operations of every backend that this machine has, and its limits, under Google Benchmark:
// one row to the rate at which memory is read, many rows to arithmetic, on the same buffer and with
// the same threads.
//
//   kernels_bench [--benchmark_filter=…]      AIRLLM_BENCH_THREADS=N, default: one per core
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/operation_set.h"

namespace airllm::kernels {
namespace {

// Larger than any level-3 cache that is in one machine with this much to spare.
constexpr uint64_t kBufferBytes = uint64_t{512} << 20;

unsigned thread_count() {
  const char* given = std::getenv("AIRLLM_BENCH_THREADS");
  const unsigned threads = given != nullptr
                               ? static_cast<unsigned>(std::strtoul(given, nullptr, 10))
                               : std::thread::hardware_concurrency();
  return threads == 0 ? 1 : threads;
}

std::string title_of(const std::string& owner, const MeasuredOperation& operation) {
  std::string title = owner + "/" + operation.name;
  if (operation.format) title += std::string("/") + number_format_name(*operation.format);
  if (operation.positions > 0) title += "/positions:" + std::to_string(operation.positions);
  if (operation.rows > 0) title += "/rows:" + std::to_string(operation.rows);
  return title;
}

void add(const std::string& owner, const MeasuredOperation& operation) {
  const auto body = [&operation](benchmark::State& state) {
    while (state.KeepRunning()) {
      operation.run();
      benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(operation.bytes));
    const double flop = static_cast<double>(operation.flop);
    if (flop > 0) {
      state.counters["FLOP/s"] = benchmark::Counter(flop * static_cast<double>(state.iterations()),
                                                    benchmark::Counter::kIsRate);
    }
  };
  benchmark::RegisterBenchmark(title_of(owner, operation).c_str(), body)->UseRealTime();
}

// Keeps what the benchmarks run.
class Benches {
 public:
  Benches() : pool_(thread_count()) {
    for (const Backend* backend : {avx512_backend(), avx2_backend(), &scalar_backend()}) {
      if (backend == nullptr) continue;
      sets_.push_back(std::make_unique<OperationSet>(*backend, pool_, kBufferBytes));
      const OperationSet& set = *sets_.back();
      if (sets_.size() == 1) add("machine", set.memory_read());
      add(backend->name, set.peak());
      for (const MeasuredOperation& operation : set.operations()) add(backend->name, operation);
    }
  }

 private:
  ThreadPool pool_;
  std::vector<std::unique_ptr<OperationSet>> sets_;
};

}  // namespace
}  // namespace airllm::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 64;
  benchmark::AddCustomContext("threads", std::to_string(airllm::kernels::thread_count()));
  const airllm::kernels::Benches benches;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

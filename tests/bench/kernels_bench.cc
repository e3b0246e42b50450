// How near the products come to the machine's limits: one row to the rate at which this machine
// reads memory, many rows to its arithmetic. The limit is measured in the same run, on the same
// buffer, with the same threads.
//
//   kernels_bench [--benchmark_filter=…]      AIRLLM_BENCH_THREADS=N, default: one per core
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kernels/backend.h"
#include "kernels/memory_sum.h"

namespace airllm::kernels {
namespace {

// Larger than any level-3 cache that is in one machine with this much to spare.
constexpr size_t kBufferBytes = size_t{512} << 20;
constexpr size_t kIn = 4096;

unsigned thread_count() {
  const char* given = std::getenv("AIRLLM_BENCH_THREADS");
  const unsigned threads = given != nullptr
                               ? static_cast<unsigned>(std::strtoul(given, nullptr, 10))
                               : std::thread::hardware_concurrency();
  return threads == 0 ? 1 : threads;
}

ThreadPool& pool() {
  static ThreadPool pool(thread_count());
  return pool;
}

// 16-bit patterns that are small finite numbers in every format.
const std::vector<uint16_t>& buffer() {
  static const std::vector<uint16_t> numbers = [] {
    std::vector<uint16_t> filled(kBufferBytes / sizeof(uint16_t));
    uint32_t state = 12345;
    for (uint16_t& number : filled) {
      state = state * 1664525 + 1013904223;
      number = static_cast<uint16_t>((state >> 16 & 0x8fff) | 0x3000);
    }
    return filled;
  }();
  return numbers;
}

// Reads the buffer as fast as the machine gives it, divided over the same threads.
void read_memory(benchmark::State& state) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(buffer()));
  while (state.KeepRunning()) benchmark::DoNotOptimize(sum_memory(bytes, pool()));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kBufferBytes));
}

// `rows` rows times a weight of `weight_bytes`.
void multiply(benchmark::State& state, const Backend* backend, NumberFormat format, size_t rows,
              size_t weight_bytes) {
  const std::vector<float> x(rows * kIn, 0.5f);
  const size_t out = weight_bytes / (kIn * bytes_per_element(format));
  std::vector<float> y(rows * out);
  MatmulArgs args;
  args.x = x.data();
  args.x_stride = kIn;
  args.weight = buffer().data();
  args.format = format;
  args.y = y.data();
  args.y_stride = out;
  args.rows = rows;
  args.in = kIn;
  args.out = out;
  while (state.KeepRunning()) {
    backend->matmul(args, pool());
    benchmark::ClobberMemory();
  }
  const double flop = 2.0 * static_cast<double>(rows * out * kIn);
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(weight_bytes));
  state.counters["FLOP/s"] = benchmark::Counter(flop * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
}

void attend(benchmark::State& state, const Backend* backend, size_t rows, size_t positions) {
  constexpr size_t kHeads = 32, kKvHeads = 8, kHeadDim = 128;
  constexpr size_t kPageFloats = 2 * kKvHeads * kKvPagePositions * kHeadDim;
  const size_t page_count = (positions + kKvPagePositions - 1) / kKvPagePositions;
  const std::vector<float> memory(page_count * kPageFloats, 0.25f);
  std::vector<const float*> pages;
  for (size_t p = 0; p < page_count; ++p) pages.push_back(&memory[p * kPageFloats]);
  const std::vector<AttentionRow> views(
      rows, AttentionRow{pages.data(), static_cast<uint32_t>(positions - 1)});
  const std::vector<float> q(rows * kHeads * kHeadDim, 0.1f);
  std::vector<float> out(q.size());
  AttentionArgs args;
  args.q = q.data();
  args.out = out.data();
  args.attention_rows = views.data();
  args.rows = rows;
  args.heads = kHeads;
  args.kv_heads = kKvHeads;
  args.head_dim = args.value_dim = kHeadDim;
  args.q_stride = kHeads * kHeadDim;
  args.scale = 0.088f;
  while (state.KeepRunning()) {
    backend->attention(args, pool());
    benchmark::ClobberMemory();
  }
  const double flop = 4.0 * static_cast<double>(rows * positions * kHeads * kHeadDim);
  state.counters["FLOP/s"] = benchmark::Counter(flop * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
}

void register_products(const Backend* backend) {
  const std::string name = backend->name;
  for (const NumberFormat format : {NumberFormat::kF32, NumberFormat::kF16, NumberFormat::kBF16}) {
    const auto add = [&](size_t rows, size_t weight_bytes) {
      const std::string title =
          name + "/matmul/" + number_format_name(format) + "/rows:" + std::to_string(rows);
      benchmark::RegisterBenchmark(title.c_str(), [=](benchmark::State& state) {
        multiply(state, backend, format, rows, weight_bytes);
      })->UseRealTime();
    };
    // One row reads the whole buffer; many rows a weight of the size of a layer's.
    add(1, kBufferBytes);
    if (backend == &scalar_backend()) continue;
    for (const size_t rows : {2, 4, 8, 16, 32}) add(rows, kBufferBytes);
    for (const size_t rows : {128, 512}) add(rows, size_t{4096} * kIn * bytes_per_element(format));
  }
}

void register_all() {
  benchmark::RegisterBenchmark("machine/read_memory", read_memory)->UseRealTime();
  for (const Backend* backend : {avx2_backend(), &scalar_backend()}) {
    if (backend == nullptr) continue;
    register_products(backend);
    for (const size_t rows : {1, 64}) {
      const std::string title =
          std::string(backend->name) + "/attention/positions:4096/rows:" + std::to_string(rows);
      benchmark::RegisterBenchmark(title.c_str(), [=](benchmark::State& state) {
        attend(state, backend, rows, 4096);
      })->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace airllm::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 64;
  benchmark::AddCustomContext("threads", std::to_string(airllm::kernels::thread_count()));
  airllm::kernels::register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

#include "kernels/memory_sum.h"

#include <atomic>
#include <cstring>

namespace airllm::kernels {
namespace {

// Two words, which every compiler keeps in a register of a 64-bit machine. Left to itself, GCC 12
// keeps sums in memory at -O2, and is then slower than the memory that it is to measure.
using Pair = uint64_t __attribute__((vector_size(16)));
constexpr size_t kLineBytes = 64;

Pair pair_at(const std::byte* memory) {
  Pair pair;
  std::memcpy(&pair, memory, sizeof(pair));
  return pair;
}

}  // namespace

uint64_t sum_memory(std::span<const std::byte> memory, ThreadPool& pool) {
  constexpr size_t kGrain = 512;  // lines: 32 KiB
  std::atomic<uint64_t> total{0};
  pool.run(memory.size() / kLineBytes, kGrain, [&](size_t begin, size_t end) {
    Pair a{}, b{}, c{}, d{};
    const std::byte* const last = memory.data() + end * kLineBytes;
    for (const std::byte* at = memory.data() + begin * kLineBytes; at != last; at += kLineBytes) {
      a += pair_at(at);
      b += pair_at(at + 16);
      c += pair_at(at + 32);
      d += pair_at(at + 48);
    }
    const Pair sum = a + b + c + d;
    total.fetch_add(sum[0] + sum[1], std::memory_order_relaxed);
  });
  return total.load();
}

}  // namespace airllm::kernels

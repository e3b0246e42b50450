// A run is a number of chunks that are left to take. Threads take them one by one with a compare
// and swap on that number, so a thread that wakes late finds none left and touches nothing of the
// run, and nobody waits for a thread that has no work.
#include "kernels/thread_pool.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/check.h"

namespace airllm::kernels {
namespace {

constexpr size_t kCacheLineBytes = 64;
// How many chunks each thread gets, roughly: enough to even out threads that are held up, and few
// enough that taking one costs nothing beside its work.
constexpr size_t kChunksPerThread = 4;
// Some tens of microseconds: longer than the gap between two operations of one layer, short beside
// the time slice that a reader thread on the same core waits for.
constexpr unsigned kSpins = 1000;
constexpr uint32_t kStop = UINT32_MAX;

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `word` is no longer `value`: spins first, then sleeps in the kernel.
uint32_t wait_while(const std::atomic<uint32_t>& word, uint32_t value) {
  for (unsigned spin = 0; spin < kSpins; ++spin) {
    const uint32_t now = word.load(std::memory_order_acquire);
    if (now != value) return now;
    pause_briefly();
  }
  word.wait(value);
  return word.load(std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::State {
  // Chunks that nobody has taken yet, or kStop. The fields of the run below are written before it
  // is set and stay until `unfinished` is 0; a thread reads them only after taking a chunk.
  alignas(kCacheLineBytes) std::atomic<uint32_t> untaken{0};
  alignas(kCacheLineBytes) std::atomic<uint32_t> unfinished{0};

  alignas(kCacheLineBytes) size_t count = 0;
  size_t chunk = 0;
  uint32_t chunks = 0;
  const void* context = nullptr;
  Call call = nullptr;

  std::vector<std::thread> workers;

  bool work_on_one_chunk();
  void work();
};

// False when no chunk is left.
bool ThreadPool::State::work_on_one_chunk() {
  uint32_t left = untaken.load(std::memory_order_acquire);
  do {
    if (left == 0 || left == kStop) return false;
  } while (!untaken.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire));
  const size_t begin = (chunks - left) * chunk;
  const size_t end = count - begin < chunk ? count : begin + chunk;
  call(context, begin, end);
  // The order of the whole: a run whose last chunk ends must see that the caller sleeps.
  if (unfinished.fetch_sub(1, std::memory_order_seq_cst) == 1) unfinished.notify_one();
  return true;
}

void ThreadPool::State::work() {
  while (wait_while(untaken, 0) != kStop) {
    while (work_on_one_chunk()) {
    }
  }
}

ThreadPool::ThreadPool(unsigned threads) : state_(std::make_unique<State>()) {
  AIRLLM_CHECK(threads >= 1);
  state_->workers.reserve(threads - 1);
  for (unsigned i = 1; i < threads; ++i) {
    state_->workers.emplace_back([state = state_.get()] { state->work(); });
  }
}

ThreadPool::~ThreadPool() {
  state_->untaken.store(kStop, std::memory_order_seq_cst);
  state_->untaken.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

unsigned ThreadPool::threads() const { return static_cast<unsigned>(state_->workers.size()) + 1; }

void ThreadPool::run_erased(size_t count, size_t grain, const void* context, Call call) {
  AIRLLM_CHECK(grain >= 1);
  if (count == 0) return;
  State& state = *state_;
  if (state.workers.empty() || count <= grain) {
    call(context, 0, count);
    return;
  }
  const size_t wanted = (state.workers.size() + 1) * kChunksPerThread;
  const size_t grains = (count - 1) / grain + 1;
  state.count = count;
  state.chunk = ((grains - 1) / wanted + 1) * grain;
  state.chunks = static_cast<uint32_t>((count - 1) / state.chunk + 1);
  state.context = context;
  state.call = call;
  state.unfinished.store(state.chunks, std::memory_order_relaxed);
  state.untaken.store(state.chunks, std::memory_order_seq_cst);
  state.untaken.notify_all();

  while (state.work_on_one_chunk()) {
  }
  for (uint32_t left = state.unfinished.load(std::memory_order_acquire); left != 0;) {
    left = wait_while(state.unfinished, left);
  }
}

}  // namespace airllm::kernels

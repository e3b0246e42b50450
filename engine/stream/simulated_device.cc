#include "engine/stream/simulated_device.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "base/checked.h"
#include "base/units.h"
#include "engine/stream/arena.h"

namespace airllm::stream {

ArenaBlock::ArenaBlock(ArenaBlock&& other) noexcept
    : arena_(std::exchange(other.arena_, nullptr)), memory_(std::exchange(other.memory_, {})) {}

ArenaBlock& ArenaBlock::operator=(ArenaBlock&& other) noexcept {
  std::swap(arena_, other.arena_);
  std::swap(memory_, other.memory_);
  return *this;
}

ArenaBlock::~ArenaBlock() {
  if (arena_ != nullptr) arena_->release(memory_);
}

namespace {

using Clock = std::chrono::steady_clock;

class SimulatedArena : public Arena {
 public:
  explicit SimulatedArena(const SimulatedDeviceOptions& options)
      : options_(options),
        thread_([this](const std::stop_token& stop) { copy_loop(stop); }) {}

  uint64_t capacity_bytes() const override { return options_.arena_bytes; }
  uint64_t used_bytes() const override {
    const std::lock_guard lock(mutex_);
    return used_bytes_;
  }
  uint64_t peak_bytes() const override {
    const std::lock_guard lock(mutex_);
    return peak_bytes_;
  }

  Result<ArenaBlock> allocate(uint64_t wanted) override {
    const uint64_t bytes = round_up(wanted, kPageBytes);
    const std::string what = "cannot take " + format_size(bytes) + " of the device's memory";
    const std::lock_guard lock(mutex_);
    if (bytes > options_.arena_bytes - used_bytes_) {
      return Unexpected(ErrorCode::kTemporary,
                        what + ", of which " + format_size(options_.arena_bytes - used_bytes_) +
                            " are free",
                        "try again when other models are done, or give more --vram");
    }
    void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return Unexpected(errno_error(what, errno, "give less --vram"));
    ::madvise(base, bytes, MADV_DONTDUMP);
    used_bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, used_bytes_);
    return ArenaBlock(*this, {static_cast<std::byte*>(base), bytes});
  }

  void copy_in(std::byte* to, std::span<const std::byte> from, Copied copied) override {
    {
      const std::lock_guard lock(mutex_);
      copies_.push_back({to, from, std::move(copied), Clock::now()});
    }
    work_.notify_one();
  }

  void write(std::byte* to, std::span<const std::byte> from) override {
    std::memcpy(to, from.data(), from.size());
  }
  void read(std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), from, to.size());
  }

 private:
  struct Copy {
    std::byte* to = nullptr;
    std::span<const std::byte> from;
    Copied copied;
    Clock::time_point wanted;
  };

  void release(std::span<std::byte> memory) override {
    ::munmap(memory.data(), memory.size());
    const std::lock_guard lock(mutex_);
    used_bytes_ -= memory.size();
  }

  void copy_loop(const std::stop_token& stop) {
    ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);  // ns: the bus keeps its time
    Clock::time_point free_since = Clock::now();
    for (;;) {
      std::unique_lock lock(mutex_);
      // What was begun is finished: its memory may be gone afterwards.
      if (!work_.wait(lock, stop, [this] { return !copies_.empty(); })) return;
      const Copy copy = std::move(copies_.front());
      copies_.pop_front();
      lock.unlock();
      const Clock::time_point began = std::max(free_since, copy.wanted);
      std::memcpy(copy.to, copy.from.data(), copy.from.size());
      free_since = Clock::now();
      if (options_.bus_bytes_per_second > 0) {
        const std::chrono::duration<double> takes(
            static_cast<double>(copy.from.size()) /
            static_cast<double>(options_.bus_bytes_per_second));
        free_since =
            std::max(free_since, began + std::chrono::duration_cast<Clock::duration>(takes));
        std::this_thread::sleep_until(free_since);
      }
      copy.copied(began);
    }
  }

  const SimulatedDeviceOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable_any work_;
  uint64_t used_bytes_ = 0;
  uint64_t peak_bytes_ = 0;
  std::deque<Copy> copies_;
  std::jthread thread_;  // last: joined before all else goes
};

class SimulatedDevice : public Device {
 public:
  SimulatedDevice(const kernels::Backend& backend, unsigned threads,
                  const SimulatedDeviceOptions& options)
      : backend_(backend), pool_(threads), arena_(options) {}
  std::string name() const override { return "simulated"; }
  Result<Slab> allocate(uint64_t bytes) override { return Slab::create(bytes); }
  const kernels::Backend& backend() const override { return backend_; }
  kernels::ThreadPool& pool() override { return pool_; }
  Arena* arena() override { return &arena_; }

 private:
  const kernels::Backend& backend_;
  kernels::ThreadPool pool_;
  SimulatedArena arena_;
};

}  // namespace

std::unique_ptr<Device> make_simulated_device(const kernels::Backend& backend, unsigned threads,
                                              const SimulatedDeviceOptions& options) {
  return std::make_unique<SimulatedDevice>(backend, threads, options);
}

}  // namespace airllm::stream

#include "engine/stream/simulated_device.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
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

class SimulatedArena;

// The guarded arenas of this process, which are open while an operation runs.
class Guards {
 public:
  static void add(SimulatedArena& arena) {
    const std::lock_guard lock(mutex);
    arenas.push_back(&arena);
  }
  static void remove(SimulatedArena& arena) {
    const std::lock_guard lock(mutex);
    std::erase(arenas, &arena);
  }

  Guards() { open(true); }
  ~Guards() { open(false); }
  Guards(const Guards&) = delete;
  Guards& operator=(const Guards&) = delete;

 private:
  static void open(bool is_open);
  static inline std::mutex mutex;
  static inline std::vector<SimulatedArena*> arenas;
};

class SimulatedArena : public Arena {
 public:
  explicit SimulatedArena(const SimulatedDeviceOptions& options)
      : options_(options), thread_([this](const std::stop_token& stop) { copy_loop(stop); }) {
    if (options.is_guarded) Guards::add(*this);
  }

  uint64_t capacity_bytes() const override { return options_.arena_bytes; }
  uint64_t used_bytes() const override {
    const std::lock_guard lock(mutex_);
    return used_bytes_;
  }
  uint64_t peak_bytes() const override {
    const std::lock_guard lock(mutex_);
    return peak_bytes_;
  }

  ~SimulatedArena() override {
    if (options_.is_guarded) Guards::remove(*this);
  }

  Result<ArenaBlock> allocate(uint64_t wanted) override {
    const uint64_t bytes = round_up(wanted, kPageBytes);
    const std::string what = "cannot take " + format_size(bytes) + " of the device's memory";
    const std::lock_guard lock(mutex_);
    if (bytes > options_.arena_bytes - used_bytes_) {
      return Unexpected(
          ErrorCode::kTemporary,
          what + ", of which " + format_size(options_.arena_bytes - used_bytes_) + " are free",
          "try again when other models are done, or give more --vram");
    }
    Region region;
    if (!region.map(bytes, options_.is_guarded)) {
      return Unexpected(errno_error(what, errno, "give less --vram"));
    }
    used_bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, used_bytes_);
    regions_.push_back(region);
    return ArenaBlock(*this, {region.base, bytes});
  }

  // What operations see, while one runs.
  void open(bool is_open) {
    const std::lock_guard lock(mutex_);
    for (const Region& region : regions_) {
      ::mprotect(region.base, region.bytes, is_open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
  }

  void copy_in(std::byte* to, std::span<const std::byte> from, Copied copied) override {
    {
      const std::lock_guard lock(mutex_);
      copies_.push_back({to, from, std::move(copied), Clock::now()});
    }
    work_.notify_one();
  }

  void write(std::byte* to, std::span<const std::byte> from) override {
    std::memcpy(reach(to), from.data(), from.size());
  }
  void read(std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), reach(from), to.size());
  }

 private:
  // Memory by the addresses that operations use, and by those of copies.
  struct Region {
    std::byte* base = nullptr;
    std::byte* alias = nullptr;
    uint64_t bytes = 0;

    bool map(uint64_t wanted, bool is_guarded) {
      const UniqueFd file(::memfd_create("airllm-arena", MFD_CLOEXEC));
      if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(wanted)) != 0) return false;
      const auto view = [&](int protection) {
        return ::mmap(nullptr, wanted, protection, MAP_SHARED, file.get(), 0);
      };
      void* const first = view(is_guarded ? PROT_NONE : PROT_READ | PROT_WRITE);
      if (first == MAP_FAILED) return false;
      void* const second = is_guarded ? view(PROT_READ | PROT_WRITE) : first;
      if (second == MAP_FAILED) {
        ::munmap(first, wanted);
        return false;
      }
      ::madvise(first, wanted, MADV_DONTDUMP);
      ::madvise(second, wanted, MADV_DONTDUMP);
      base = static_cast<std::byte*>(first);
      alias = static_cast<std::byte*>(second);
      bytes = wanted;
      return true;
    }
    void unmap() const {
      ::munmap(base, bytes);
      if (alias != base) ::munmap(alias, bytes);
    }
  };

  std::byte* reach(const std::byte* address) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(regions_.begin(), regions_.end(), [&](const Region& region) {
      return region.base <= address && address < region.base + region.bytes;
    });
    AIRLLM_CHECK(found != regions_.end());
    return found->alias + (address - found->base);
  }

  struct Copy {
    std::byte* to = nullptr;
    std::span<const std::byte> from;
    Copied copied;
    Clock::time_point wanted;
  };

  void release(std::span<std::byte> memory) override {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(regions_.begin(), regions_.end(), [&](const Region& region) {
      return region.base == memory.data();
    });
    AIRLLM_CHECK(found != regions_.end());
    found->unmap();
    regions_.erase(found);
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
      std::memcpy(reach(copy.to), copy.from.data(), copy.from.size());
      if (options_.bus_bytes_per_second > 0) {
        // A bus does not wait for processors: where they were late, the next copies catch up.
        const std::chrono::duration<double> takes(
            static_cast<double>(copy.from.size()) /
            static_cast<double>(options_.bus_bytes_per_second));
        free_since = began + std::chrono::duration_cast<Clock::duration>(takes);
        std::this_thread::sleep_until(free_since);
      } else {
        free_since = Clock::now();
      }
      copy.copied(began);
    }
  }

  const SimulatedDeviceOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable_any work_;
  uint64_t used_bytes_ = 0;
  uint64_t peak_bytes_ = 0;
  std::vector<Region> regions_;
  std::deque<Copy> copies_;
  std::jthread thread_;  // last: joined before all else goes
};

void Guards::open(bool is_open) {
  const std::lock_guard lock(mutex);
  for (SimulatedArena* const arena : arenas) arena->open(is_open);
}

// Operations that open the guarded arenas while they run.
const kernels::Backend* guarded_backend = nullptr;

template <auto kOperation, typename Function>
struct Guarded;
template <auto kOperation, typename... Args>
struct Guarded<kOperation, void (*)(Args...)> {
  static void run(Args... args) {
    const Guards guards;
    (guarded_backend->*kOperation)(args...);
  }
};
template <auto kOperation>
constexpr auto kGuarded =
    Guarded<kOperation,
            std::remove_cvref_t<decltype(std::declval<kernels::Backend>().*kOperation)>>::run;

const kernels::Backend& guard(const kernels::Backend& backend) {
  using kernels::Backend;
  AIRLLM_CHECK(guarded_backend == nullptr || guarded_backend == &backend);
  guarded_backend = &backend;
  static Backend table;
  table = {.name = backend.name,
           .matmul = kGuarded<&Backend::matmul>,
           .prepared_bytes = backend.prepared_bytes,
           .prepare = kGuarded<&Backend::prepare>,
           .matmul_transposed = kGuarded<&Backend::matmul_transposed>,
           .norm = kGuarded<&Backend::norm>,
           .rope = kGuarded<&Backend::rope>,
           .attention = kGuarded<&Backend::attention>,
           .map = kGuarded<&Backend::map>,
           .add = kGuarded<&Backend::add>,
           .copy = kGuarded<&Backend::copy>,
           .add_bias = kGuarded<&Backend::add_bias>,
           .compress_row = backend.compress_row,
           .to_f32 = backend.to_f32,  // of the host's memory
           .burn = backend.burn};
  return table;
}

class SimulatedDevice : public Device {
 public:
  SimulatedDevice(const kernels::Backend& backend, unsigned threads,
                  const SimulatedDeviceOptions& options)
      : backend_(options.is_guarded ? guard(backend) : backend), pool_(threads), arena_(options) {}
  std::string name() const override { return "simulated"; }
  Result<Slab> allocate(uint64_t working_bytes, UniqueFd lasting, uint64_t lasting_bytes) override {
    return Slab::create(working_bytes, std::move(lasting), lasting_bytes);
  }
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

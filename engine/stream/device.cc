#include "engine/stream/device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/checked.h"
#include "base/units.h"

namespace airllm::stream {
namespace {

// Debian's kernels give them to a process's own memory, and say "never" of shared memory.
bool gives_huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string modes;
  std::getline(file, modes);
  return !modes.empty() && modes.find("[never]") == std::string::npos;
}

// A mapping has huge pages only where its addresses and its offsets in the file agree in this.
constexpr uint64_t kHugePageBytes = 2 * kMiB;

// Addresses for `bytes` that nothing else takes, `middle` of them before a huge page begins. Null
// where there are none.
std::byte* reserve(uint64_t bytes, uint64_t middle) {
  const uint64_t reserved = bytes + kHugePageBytes;
  void* const begin =
      ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (begin == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uint64_t before = round_up(address + middle, kHugePageBytes) - middle - address;
  auto* const base = static_cast<std::byte*>(begin) + before;
  if (before > 0) ::munmap(begin, before);
  if (before < kHugePageBytes) ::munmap(base + bytes, kHugePageBytes - before);
  return base;
}

bool map_own(std::byte* address, uint64_t bytes) {
  if (bytes == 0) return true;
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  return ::mmap(address, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0) != MAP_FAILED;
}

bool map_file(std::byte* address, uint64_t bytes, int fd) {
  if (bytes == 0) return true;
  return ::mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
         MAP_FAILED;
}

// Gives a process's own memory back, which may be locked. By the system call: the sanitizers let
// munlock do nothing, but not mlock2, and madvise refuses locked memory.
void give_back_own(std::byte* begin, uint64_t bytes, bool is_locked) {
  if (is_locked) ::syscall(SYS_munlock, begin, bytes);
  ::madvise(begin, bytes, MADV_DONTNEED);
  if (is_locked) ::mlock2(begin, bytes, MLOCK_ONFAULT);
}

// By the file, since madvise refuses locked memory.
void punch_hole(int fd, uint64_t begin, uint64_t end) {
  if (end <= begin) return;
  ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
              static_cast<off_t>(end - begin));
}

}  // namespace

Result<Slab> Slab::create(uint64_t working_bytes, UniqueFd lasting, uint64_t lasting_bytes) {
  const uint64_t bytes = working_bytes + lasting_bytes;
  const std::string what = "cannot take " + format_size(bytes) + " of memory for weights";
  const std::string remedy = "give a smaller --ram";
  AIRLLM_CHECK(working_bytes % kPageBytes == 0 || lasting_bytes == 0);
  Slab slab;
  std::byte* const base = reserve(round_up(bytes, kPageBytes), round_up(working_bytes, kPageBytes));
  if (base == nullptr) return Unexpected(errno_error(what, errno, remedy));
  slab.memory_ = {base, bytes};
  slab.working_bytes_ = working_bytes;
  slab.lasting_ = std::move(lasting);
  if (!map_own(base, working_bytes) ||
      !map_file(base + working_bytes, lasting_bytes, slab.lasting_.get())) {
    return Unexpected(errno_error(what, errno, remedy));
  }
  // Activations follow from prompts. What is refused here, LimitCORE=0 and the filter still keep.
  ::madvise(base, bytes, MADV_DONTDUMP);
  slab.has_huge_pages_ = ::madvise(base, bytes, MADV_HUGEPAGE) == 0 && gives_huge_pages();
  // Pages are locked as they are touched, so that nothing is committed before.
  if (::mlock2(base, bytes, MLOCK_ONFAULT) == 0) slab.locked_bytes_ = bytes;
  return slab;
}

Slab::Slab(Slab&& other) noexcept { *this = std::move(other); }

Slab& Slab::operator=(Slab&& other) noexcept {
  std::swap(lasting_, other.lasting_);
  std::swap(working_bytes_, other.working_bytes_);
  std::swap(memory_, other.memory_);
  std::swap(locked_bytes_, other.locked_bytes_);
  std::swap(has_huge_pages_, other.has_huge_pages_);
  return *this;
}

void Slab::discard(std::span<std::byte> part) {
  const auto begin = static_cast<uint64_t>(part.data() - memory_.data());
  const uint64_t first = round_up(begin, kPageBytes);
  const uint64_t last = round_down(begin + part.size(), kPageBytes);
  const uint64_t own_end = std::min(last, working_bytes_);
  if (own_end > first) {
    give_back_own(memory_.data() + first, own_end - first, locked_bytes_ > 0);
  }
  if (last > working_bytes_) {
    punch_hole(lasting_.get(), std::max(first, working_bytes_) - working_bytes_,
               last - working_bytes_);
  }
}

Slab::~Slab() {
  if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
}

namespace {

class CpuDevice : public Device {
 public:
  CpuDevice(const kernels::Backend& backend, unsigned threads)
      : backend_(backend), pool_(threads) {}
  std::string name() const override { return "cpu"; }
  Result<Slab> allocate(uint64_t working_bytes, UniqueFd lasting, uint64_t lasting_bytes) override {
    return Slab::create(working_bytes, std::move(lasting), lasting_bytes);
  }
  const kernels::Backend& backend() const override { return backend_; }
  kernels::ThreadPool& pool() override { return pool_; }

 private:
  const kernels::Backend& backend_;
  kernels::ThreadPool pool_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(const kernels::Backend& backend, unsigned threads) {
  return std::make_unique<CpuDevice>(backend, threads);
}

}  // namespace airllm::stream

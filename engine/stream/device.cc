#include "engine/stream/device.h"

#include <fcntl.h>
#include <sys/mman.h>

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

// Debian's kernels say "never" of shared memory, whatever a program asks for.
bool gives_huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  std::string modes;
  std::getline(file, modes);
  return !modes.empty() && modes.find("[never]") == std::string::npos &&
         modes.find("[deny]") == std::string::npos;
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

bool map_at(std::byte* address, uint64_t bytes, int fd, uint64_t offset) {
  if (bytes == 0) return true;
  return ::mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                static_cast<off_t>(offset)) != MAP_FAILED;
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
  slab.working_begin_ = reinterpret_cast<uintptr_t>(base) % kHugePageBytes;
  slab.lasting_ = std::move(lasting);
  slab.working_ = UniqueFd(::memfd_create("airllm-slab", MFD_CLOEXEC));
  if (!slab.working_.valid() ||
      ::ftruncate(slab.working_.get(), static_cast<off_t>(slab.working_begin_ + working_bytes)) !=
          0 ||
      !map_at(base, working_bytes, slab.working_.get(), slab.working_begin_) ||
      !map_at(base + working_bytes, lasting_bytes, slab.lasting_.get(), 0)) {
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
  std::swap(working_, other.working_);
  std::swap(lasting_, other.lasting_);
  std::swap(working_begin_, other.working_begin_);
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
  punch_hole(working_.get(), working_begin_ + first,
             working_begin_ + std::min(last, working_bytes_));
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

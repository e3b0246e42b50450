#include "engine/stream/device.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <utility>

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

}  // namespace

Result<Slab> Slab::create(uint64_t bytes) {
  const std::string what = "cannot take " + format_size(bytes) + " of memory for weights";
  const std::string remedy = "give a smaller --ram";
  Slab slab;
  slab.fd_ = UniqueFd(::memfd_create("airllm-slab", MFD_CLOEXEC));
  if (!slab.fd_.valid() || ::ftruncate(slab.fd_.get(), static_cast<off_t>(bytes)) != 0) {
    return Unexpected(errno_error(what, errno, remedy));
  }
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, slab.fd_.get(), 0);
  if (base == MAP_FAILED) return Unexpected(errno_error(what, errno, remedy));
  // Activations follow from prompts. What is refused here, LimitCORE=0 and the filter still keep.
  ::madvise(base, bytes, MADV_DONTDUMP);
  slab.has_huge_pages_ = ::madvise(base, bytes, MADV_HUGEPAGE) == 0 && gives_huge_pages();
  // Pages are locked as they are touched, so that nothing is committed before.
  if (::mlock2(base, bytes, MLOCK_ONFAULT) == 0) slab.locked_bytes_ = bytes;
  slab.memory_ = {static_cast<std::byte*>(base), bytes};
  return slab;
}

Slab::Slab(Slab&& other) noexcept
    : fd_(std::move(other.fd_)),
      memory_(std::exchange(other.memory_, {})),
      locked_bytes_(other.locked_bytes_),
      has_huge_pages_(other.has_huge_pages_) {}

Slab& Slab::operator=(Slab&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(memory_, other.memory_);
  std::swap(locked_bytes_, other.locked_bytes_);
  std::swap(has_huge_pages_, other.has_huge_pages_);
  return *this;
}

void Slab::discard(std::span<std::byte> part) {
  const auto begin = static_cast<uint64_t>(part.data() - memory_.data());
  const uint64_t first = round_up(begin, kPageBytes);
  const uint64_t last = round_down(begin + part.size(), kPageBytes);
  if (last <= first) return;
  // By the file, since madvise refuses locked memory.
  ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(first),
              static_cast<off_t>(last - first));
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
  Result<Slab> allocate(uint64_t bytes) override { return Slab::create(bytes); }
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

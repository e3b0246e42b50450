#include "engine/stream/device.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/checked.h"
#include "base/units.h"

namespace airllm::stream {

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
  slab.memory_ = {static_cast<std::byte*>(base), bytes};
  return slab;
}

Slab::Slab(Slab&& other) noexcept
    : fd_(std::move(other.fd_)), memory_(std::exchange(other.memory_, {})) {}

Slab& Slab::operator=(Slab&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(memory_, other.memory_);
  return *this;
}

void Slab::discard(std::span<std::byte> part) {
  const auto begin = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t first = round_up(begin, kPageBytes);
  const uintptr_t last = round_down(begin + part.size(), kPageBytes);
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_REMOVE);
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

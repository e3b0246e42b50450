#include "engine/store/io_buffer.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/checked.h"
#include "base/units.h"

namespace airllm::store {
namespace {

constexpr uint64_t kHugePageBytes = 2 * kMiB;

// Maps `bytes`, a multiple of `alignment`, on a boundary of it; null and errno when there is none.
std::byte* map_aligned(uint64_t bytes, uint64_t alignment) {
  const uint64_t wide = bytes + alignment - kPageBytes;
  void* const mapped =
      ::mmap(nullptr, wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const uint64_t lead =
      round_up(reinterpret_cast<uintptr_t>(begin), alignment) - reinterpret_cast<uintptr_t>(begin);
  if (lead > 0) ::munmap(begin, lead);
  if (wide - lead > bytes) ::munmap(begin + lead + bytes, wide - lead - bytes);
  return begin + lead;
}

}  // namespace

IoBuffer::~IoBuffer() { release(); }

Result<std::span<std::byte>> IoBuffer::reserve(uint64_t bytes) {
  if (bytes <= memory_.size()) return memory_;
  release();
  const uint64_t rounded = round_up(bytes, bytes < kHugePageBytes ? kPageBytes : kHugePageBytes);
  std::byte* const begin = map_aligned(rounded, kHugePageBytes);
  if (begin == nullptr) {
    return Unexpected(errno_error("cannot take " + format_size(rounded) + " of memory", errno,
                                  "try again when less memory is in use"));
  }
  memory_ = {begin, rounded};
  if (rounded >= kHugePageBytes) ::madvise(begin, rounded, MADV_HUGEPAGE);
  return memory_;
}

void IoBuffer::release() {
  if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
  memory_ = {};
}

}  // namespace airllm::store

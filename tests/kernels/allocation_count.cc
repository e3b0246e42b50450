// A file of its own: where the compiler sees these bodies, it takes them for a mismatch of new and
// free.
#include "tests/kernels/allocation_count.h"

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<size_t> allocations{0};

void* operator new(size_t size, const std::nothrow_t&) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace airllm::kernels::testing {

size_t allocation_count() { return allocations.load(std::memory_order_relaxed); }

}  // namespace airllm::kernels::testing

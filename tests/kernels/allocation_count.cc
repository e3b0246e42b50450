// A file of its own: where the compiler sees these bodies, it takes them for a mismatch of new and
// free.
#include "tests/kernels/allocation_count.h"

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<size_t> allocations{0};

void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace airllm::kernels::testing {

size_t allocation_count() { return allocations.load(std::memory_order_relaxed); }

}  // namespace airllm::kernels::testing

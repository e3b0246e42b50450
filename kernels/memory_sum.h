// The memory's own rate: what no product over weights can be faster than.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/thread_pool.h"

namespace airllm::kernels {

// Reads the whole 64-byte lines of `memory` as fast as the machine gives them, divided over the
// pool's threads, and returns the sum of their 64-bit words.
uint64_t sum_memory(std::span<const std::byte> memory, ThreadPool& pool);

}  // namespace airllm::kernels

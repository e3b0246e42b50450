// How many times this program took memory with new, for promises that something takes none.
#pragma once

#include <cstddef>

namespace airllm::kernels::testing {

size_t allocation_count();

}  // namespace airllm::kernels::testing

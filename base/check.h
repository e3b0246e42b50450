// CHECK: a condition whose failure is a bug. It aborts with the place, in every build type.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace airllm::internal {
[[noreturn]] inline void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}
}  // namespace airllm::internal

#define AIRLLM_CHECK(condition)                                         \
  do {                                                                  \
    if (!(condition)) [[unlikely]] {                                    \
      ::airllm::internal::check_failed(#condition, __FILE__, __LINE__); \
    }                                                                   \
  } while (false)

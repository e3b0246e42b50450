// Recursion that follows a template ends with an error before the thread's stack does.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

namespace airllm::jinja {

// For the thread that makes it.
class StackGuard {
 public:
  StackGuard() {
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
    void* lowest = nullptr;
    size_t size = 0;
    if (pthread_attr_getstack(&attributes, &lowest, &size) == 0) {
      limit_ = reinterpret_cast<uintptr_t>(lowest) + kReserveBytes;
    }
    pthread_attr_destroy(&attributes);
  }
  bool nearly_full() const {
    return reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) < limit_;
  }

 private:
  // What one step of the interpreter may use: printing or comparing kMaxNesting lists, with a
  // sanitizer's larger frames.
  static constexpr size_t kReserveBytes = 96 << 10;
  uintptr_t limit_ = 0;
};

}  // namespace airllm::jinja

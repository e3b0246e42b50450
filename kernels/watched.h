// The thread sanitizer slows a kernel's inner loop twentyfold and finds nothing there: threads
// divide a product by outputs. So kernels are compiled without it, and what a product reads and
// writes is told to it in one piece, where the product begins. A tile that is still being read from
// disk, or a buffer that somebody else fills, is found like that.
#pragma once

#include "kernels/backend.h"

#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_read1(void* address);
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

namespace airllm::kernels {

// A product of a backend's table.
using Matmul = void(const MatmulArgs&, ThreadPool&);

#if defined(__SANITIZE_THREAD__)

// Of weights a byte a page: they come by whole pages.
inline void watch_weight(const void* begin, size_t bytes) {
  constexpr size_t kPageBytes = 4096;
  char* const first = static_cast<char*>(const_cast<void*>(begin));
  for (size_t at = 0; at < bytes; at += kPageBytes) __tsan_read1(first + at);
}

// x [rows, x_width] times weight [out, in] is y [rows, y_width].
inline void watch(const MatmulArgs& args, size_t x_width, size_t y_width) {
  const size_t last_row = row_bytes(args.format, args.in);
  watch_weight(args.weight, args.out == 0 ? 0 : (args.out - 1) * weight_stride(args) + last_row);
  for (size_t row = 0; row < args.rows; ++row) {
    float* const x = const_cast<float*>(args.x) + row * args.x_stride;
    __tsan_read_range(x, x_width * sizeof(float));
    __tsan_write_range(args.y + row * args.y_stride, y_width * sizeof(float));
  }
}

#else

inline void watch(const MatmulArgs&, size_t, size_t) {}

#endif

template <Matmul kMatmul>
void watched(const MatmulArgs& args, ThreadPool& pool) {
  watch(args, args.in, args.out);
  kMatmul(args, pool);
}

template <Matmul kMatmul>
void watched_transposed(const MatmulArgs& args, ThreadPool& pool) {
  watch(args, args.out, args.in);
  kMatmul(args, pool);
}

}  // namespace airllm::kernels

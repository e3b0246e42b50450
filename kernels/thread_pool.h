// A fixed set of threads that divide one product or one operation at a time.
#pragma once

#include <cstddef>
#include <memory>

namespace airllm::kernels {

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller, which works too: 1 starts no thread.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned threads() const;

  // Calls body(begin, end) on disjoint ranges that cover [0, count), each a multiple of `grain`
  // long but for the last, and returns when all are done. One caller at a time; no allocation;
  // `body` must not throw nor call run() again.
  template <typename Body>
  void run(size_t count, size_t grain, const Body& body) {
    run_erased(count, grain, &body, [](const void* context, size_t begin, size_t end) {
      (*static_cast<const Body*>(context))(begin, end);
    });
  }

 private:
  using Call = void (*)(const void* context, size_t begin, size_t end);
  void run_erased(size_t count, size_t grain, const void* context, Call call);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace airllm::kernels

// What waits to be sent to one peer. Engine threads put frames in and never block; the connection
// takes them out. Bounded: a peer that does not read loses its job, not the daemon its memory.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace airllm::daemon {

// Thread-safe.
class Outbox {
 public:
  struct Entry {
    std::string frame;
    uint64_t ends_request = 0;  // the request that ends with this frame; 0: none
  };
  enum class Pushed { kQueued, kFull, kClosed };

  // `wake` is called, from any thread, when there is something new for the connection to do; once
  // until the next take().
  Outbox(uint64_t limit_bytes, std::function<void()> wake)
      : limit_(limit_bytes), wake_(std::move(wake)) {}

  // Queues a part of an answer, unless more than the limit would then wait.
  Pushed push(std::string frame);
  // Queues what must be told (ends, errors): may go beyond the limit by one longest frame. Beyond
  // that the outbox breaks: nothing more is queued and the connection is to be closed.
  Pushed push_final(std::string frame, uint64_t ends_request);
  // Says that the job of `request` was given up because of kFull.
  void report_full(uint64_t request);

  // What the connection does when woken. Frames count as waiting until written() is told.
  struct Work {
    std::deque<Entry> entries;  // at least one when any waits, and about `max_bytes` at most
    std::vector<uint64_t> given_up;
    bool broken = false;
  };
  Work take(uint64_t max_bytes);
  void written(uint64_t bytes);

  uint64_t waiting_bytes() const;
  // Drops everything; later pushes are refused.
  void close();

 private:
  Pushed push_entry(Entry entry, uint64_t limit, bool break_when_full);
  void wake_once(std::unique_lock<std::mutex>& lock);

  const uint64_t limit_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  std::deque<Entry> entries_;
  std::vector<uint64_t> given_up_;
  uint64_t bytes_ = 0;
  bool woken_ = false;
  bool broken_ = false;
  bool closed_ = false;
};

}  // namespace airllm::daemon

// What waits to be sent to one peer. Engine threads put frames in and never block; the connection
// takes them out. Bounded, alone and with all others: a peer that does not read loses its job, not
// the daemon its memory.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/byte_budget.h"

namespace airllm::daemon {

// Thread-safe.
class Outbox {
 public:
  struct Entry {
    std::string frame;
    bool is_final = false;      // an end or an error, not a part of an answer
    uint64_t ends_request = 0;  // the request that ends with this frame; 0: none
  };
  enum class Pushed { kQueued, kFull, kClosed };

  // `wake` is called, from any thread, when there is something new for the connection to do; once
  // until the next take().
  // `shared` is what all outboxes may hold, here for `user`.
  Outbox(uint64_t limit_bytes, std::shared_ptr<ByteBudget> shared, uid_t user,
         std::function<void()> wake)
      : limit_(limit_bytes), shared_(std::move(shared)), user_(user), wake_(std::move(wake)) {}
  ~Outbox() { close(); }
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Queues a part of an answer, unless more than the limit would then wait.
  Pushed push(std::string frame);
  // Queues what must be told (ends, errors): may go beyond the limit by one longest frame, and by a
  // little when the memory of all is used up. Beyond that the outbox breaks: nothing more is queued
  // and the connection is to be closed.
  Pushed push_final(std::string frame, uint64_t ends_request);
  // Says that the job of `request` was given up while its peer was behind.
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
  // How much more may come before those who can should wait: up to a quarter of the limit, so that
  // several answers at once stay within it.
  uint64_t room_bytes() const;
  // Drops everything; later pushes are refused.
  void close();

 private:
  Pushed push_entry(Entry entry);
  bool reserve(uint64_t bytes, bool is_final);
  void wake_once(std::unique_lock<std::mutex>& lock);

  const uint64_t limit_;
  const std::shared_ptr<ByteBudget> shared_;
  const uid_t user_;
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

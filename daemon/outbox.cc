#include "daemon/outbox.h"

#include <utility>

#include "protocol/messages.h"

namespace airllm::daemon {

Outbox::Pushed Outbox::push(std::string frame) {
  return push_entry({std::move(frame), 0}, limit_, false);
}

Outbox::Pushed Outbox::push_final(std::string frame, uint64_t ends_request) {
  return push_entry({std::move(frame), ends_request}, limit_ + protocol::kMaxFrameBytes, true);
}

Outbox::Pushed Outbox::push_entry(Entry entry, uint64_t limit, bool break_when_full) {
  std::unique_lock lock(mutex_);
  if (closed_ || broken_) return Pushed::kClosed;
  if (bytes_ + entry.frame.size() > limit) {
    if (break_when_full) {
      broken_ = true;
      wake_once(lock);
    }
    return Pushed::kFull;
  }
  bytes_ += entry.frame.size();
  entries_.push_back(std::move(entry));
  wake_once(lock);
  return Pushed::kQueued;
}

void Outbox::report_full(uint64_t request) {
  std::unique_lock lock(mutex_);
  if (closed_) return;
  given_up_.push_back(request);
  wake_once(lock);
}

void Outbox::wake_once(std::unique_lock<std::mutex>& lock) {
  if (std::exchange(woken_, true)) return;
  lock.unlock();
  wake_();
}

Outbox::Work Outbox::take(uint64_t max_bytes) {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  Work work;
  work.broken = broken_;
  work.given_up = std::exchange(given_up_, {});
  uint64_t taken = 0;
  while (!entries_.empty() && taken < max_bytes) {
    taken += entries_.front().frame.size();
    work.entries.push_back(std::move(entries_.front()));
    entries_.pop_front();
  }
  return work;
}

void Outbox::written(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  bytes_ -= std::min(bytes, bytes_);
}

uint64_t Outbox::waiting_bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

void Outbox::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  entries_.clear();
  bytes_ = 0;
}

}  // namespace airllm::daemon

#include "daemon/outbox.h"

#include <algorithm>
#include <utility>

#include "protocol/messages.h"

namespace airllm::daemon {
namespace {

// Ends and errors that a peer is told even when the memory of all is used up.
constexpr uint64_t kAlwaysBytes = uint64_t{64} << 10;

}  // namespace

Outbox::Pushed Outbox::push(std::string frame) { return push_entry({std::move(frame)}); }

Outbox::Pushed Outbox::push_final(std::string frame, uint64_t ends_request) {
  return push_entry({std::move(frame), true, ends_request});
}

Outbox::Pushed Outbox::push_entry(Entry entry) {
  std::unique_lock lock(mutex_);
  if (closed_ || broken_) return Pushed::kClosed;
  if (!reserve(entry.frame.size(), entry.is_final)) {
    if (entry.is_final) {
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

bool Outbox::reserve(uint64_t bytes, bool is_final) {
  const uint64_t own_limit = is_final ? limit_ + protocol::kMaxFrameBytes : limit_;
  if (bytes_ + bytes > own_limit) return false;
  if (shared_->take(user_, bytes) == ByteBudget::Taken::kYes) return true;
  if (!is_final || bytes_ > kAlwaysBytes) return false;
  shared_->force(user_, bytes);
  return true;
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
  const uint64_t gone = std::min(bytes, bytes_);
  bytes_ -= gone;
  shared_->give(user_, gone);
}

uint64_t Outbox::waiting_bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

uint64_t Outbox::room_bytes() const {
  const uint64_t mark = limit_ / 4;
  return std::min(mark - std::min(mark, waiting_bytes()), shared_->room(user_));
}

void Outbox::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  entries_.clear();
  shared_->give(user_, std::exchange(bytes_, 0));
}

}  // namespace airllm::daemon

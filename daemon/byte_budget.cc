#include "daemon/byte_budget.h"

#include <algorithm>

#include "base/check.h"

namespace airllm::daemon {

void ByteBudget::set_limits(uint64_t total_bytes, uint64_t per_user_bytes) {
  const std::lock_guard lock(mutex_);
  total_limit_ = total_bytes;
  user_limit_ = per_user_bytes;
}

uint64_t ByteBudget::total_limit() const {
  const std::lock_guard lock(mutex_);
  return total_limit_;
}

uint64_t ByteBudget::user_limit() const {
  const std::lock_guard lock(mutex_);
  return user_limit_;
}

ByteBudget::Taken ByteBudget::take(uid_t user, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(user);
  const uint64_t held = found == users_.end() ? 0 : found->second;
  if (held + bytes > user_limit_) return Taken::kUserIsFull;
  if (total_ + bytes > total_limit_) return Taken::kAllIsFull;
  if (bytes > 0) users_[user] += bytes;
  total_ += bytes;
  return Taken::kYes;
}

uint64_t ByteBudget::room(uid_t user) const {
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(user);
  const uint64_t held = found == users_.end() ? 0 : found->second;
  return std::min(user_limit_ - std::min(user_limit_, held),
                  total_limit_ - std::min(total_limit_, total_));
}

void ByteBudget::force(uid_t user, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes > 0) users_[user] += bytes;
  total_ += bytes;
}

void ByteBudget::give(uid_t user, uint64_t bytes) {
  if (bytes == 0) return;
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(user);
  AIRLLM_CHECK(found != users_.end() && found->second >= bytes);
  total_ -= bytes;
  found->second -= bytes;
  if (found->second == 0) users_.erase(found);
}

}  // namespace airllm::daemon

#include "engine/store/quota.h"

#include "base/units.h"
#include "base/users.h"

namespace airllm::store {

Quota::Promise::~Promise() {
  const std::lock_guard lock(quota_.mutex_);
  const auto found = quota_.promised_.find(user_);
  if (found == quota_.promised_.end()) return;
  found->second.erase(name_);
  if (found->second.empty()) quota_.promised_.erase(found);
}

Status Quota::Promise::take(uint64_t bytes, uint64_t limit_bytes, const CountStored& count_stored) {
  const std::lock_guard lock(quota_.mutex_);
  std::map<std::string, uint64_t>& promised = quota_.promised_[user_];
  std::set<std::string> counted{name_};
  uint64_t used = 0;
  for (const auto& [name, promised_bytes] : promised) {
    counted.insert(name);
    used += promised_bytes;
  }
  AIRLLM_TRY(const uint64_t stored, count_stored(counted));
  used += stored;
  if (used > limit_bytes || bytes > limit_bytes - used) {
    return Unexpected(
        ErrorCode::kCannotCreate,
        "the model needs " + format_size(bytes) + ", but the models of user " + user_name(user_) +
            " take " + format_size(used) + " of the " + format_size(limit_bytes) +
            " that store-quota allows",
        "Remove models or unfinished splits of yours ('airllm list', 'airllm rm'), or have the "
        "administrator raise store-quota in the daemon's settings.");
  }
  promised[name_] = bytes;
  return {};
}

}  // namespace airllm::store

// Memory that the connections of all users share: so much in all, so much of one user.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <mutex>

namespace airllm::daemon {

// Thread-safe.
class ByteBudget {
 public:
  ByteBudget(uint64_t total_bytes, uint64_t per_user_bytes)
      : total_limit_(total_bytes), user_limit_(per_user_bytes) {}

  // What is taken already stays taken.
  void set_limits(uint64_t total_bytes, uint64_t per_user_bytes);
  uint64_t total_limit() const;
  uint64_t user_limit() const;

  enum class Taken { kYes, kUserIsFull, kAllIsFull };
  // Takes `bytes` for `user`, or nothing.
  [[nodiscard]] Taken take(uid_t user, uint64_t bytes);
  // What `user` may still take.
  uint64_t room(uid_t user) const;
  // Takes them whether they fit or not.
  void force(uid_t user, uint64_t bytes);
  // Gives back what was taken.
  void give(uid_t user, uint64_t bytes);

 private:
  mutable std::mutex mutex_;  // guards what follows
  uint64_t total_limit_;
  uint64_t user_limit_;
  uint64_t total_ = 0;
  std::map<uid_t, uint64_t> users_;  // those who hold any
};

}  // namespace airllm::daemon

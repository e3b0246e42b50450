// What a user's models may take of the store.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "base/result.h"

namespace airllm::store {

// Counts what running splits were promised together with what lies on the disk, so that splits side
// by side cannot go beyond the quota either. Thread-safe.
class Quota {
 public:
  // The bytes of a user's models and unfinished splits, but for the private ones of `without`.
  using CountStored = std::function<Result<uint64_t>(const std::set<std::string>& without)>;

  // Room that is promised to one split; given back when it goes.
  class Promise {
   public:
    Promise(Quota& quota, uid_t user, std::string name)
        : quota_(quota), user_(user), name_(std::move(name)) {}
    ~Promise();
    Promise(const Promise&) = delete;
    Promise& operator=(const Promise&) = delete;

    // Promises `bytes` for the whole model. More than `limit_bytes` with what the user has is a
    // kCannotCreate error that tells the numbers.
    Status take(uint64_t bytes, uint64_t limit_bytes, const CountStored& count_stored);

   private:
    Quota& quota_;
    const uid_t user_;
    const std::string name_;
  };

 private:
  std::mutex mutex_;
  std::map<uid_t, std::map<std::string, uint64_t>> promised_;  // by the private model's name
};

}  // namespace airllm::store

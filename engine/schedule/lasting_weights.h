// A model's weights in memory that may outlast the process, and what tells the next one whether
// they are of use to it.
//
// They lie in a memfd that nobody can shorten, as the plan has placed them (stream::Plan). Its last
// page says in JSON whose they are: not the name under which the memfd is held, which everybody on
// the machine may be able to read. Weights and nothing else: no byte of it follows from a prompt.
// (Which blocks of the embedding are there at all does; that is known to none but the daemon.)
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/engine.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/loaded_model.h"
#include "engine/stream/plan.h"

namespace airllm::schedule {

struct LastingInfo {
  engine::ModelRef model;
  uint64_t plan_bytes = 0;   // a budget from which the plan follows
  uint64_t layout = 0;       // layout_hash()
  uint64_t sweep_bytes = 0;  // weights of a whole sweep
  bool streams = false;      // some are read in every sweep
  Budgets defaults;          // of the process that made them
};

// Tells apart all models and all ways to place their weights: equal only where each byte of the
// lasting memory means the same.
uint64_t layout_hash(const LoadedModel& model, const stream::Plan& plan);

// Owns the memfd. Used by one thread.
class LastingWeights {
 public:
  static Result<LastingWeights> create(uint64_t bytes, LastingInfo info);
  // What an earlier process has left. kData when it is none of this version; what has the name of
  // one holds no memory then.
  static Result<LastingWeights> receive(engine::MemoryStore::Entry entry);

  const LastingInfo& info() const { return info_; }
  // What a MemoryStore knows them by.
  std::string name() const;
  uint64_t bytes() const { return bytes_; }
  // Of what is in memory now.
  uint64_t allocated_bytes() const;
  int fd() const { return fd_.get(); }
  UniqueFd take_fd() { return std::move(fd_); }
  // Gives the memory back to the system, whoever else holds it.
  void discard();

 private:
  static Result<LastingWeights> read(engine::MemoryStore::Entry& entry);
  LastingWeights(UniqueFd fd, uint64_t bytes, LastingInfo info)
      : fd_(std::move(fd)), bytes_(bytes), info_(std::move(info)) {}

  UniqueFd fd_;
  uint64_t bytes_ = 0;
  LastingInfo info_;
};

}  // namespace airllm::schedule

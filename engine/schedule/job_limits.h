// How many jobs and how many bytes of prompts there may be, of one user and in all.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>

#include "engine/engine.h"

namespace airllm::schedule {

// What the jobs there are take of the limits. Not thread-safe: JobTable's, under its lock.
class JobLoad {
 public:
  explicit JobLoad(const engine::EngineOptions& options);

  // For jobs to come.
  void set_limits(const engine::EngineOptions& options);
  // Counts the job, or refuses it with the limit, its value and its setting: a prompt that alone is
  // too long with kUsage, what may pass later with kTemporary.
  Status take(engine::JobId job, uid_t user, uint64_t prompt_bytes);
  void release(engine::JobId job);

 private:
  struct Charge {
    uid_t user = 0;
    uint64_t prompt_bytes = 0;
  };
  struct Sum {
    uint64_t jobs = 0;
    uint64_t prompt_bytes = 0;
  };

  uint64_t max_jobs_ = 0;
  uint64_t max_jobs_per_user_ = 0;
  uint64_t max_prompt_bytes_ = 0;
  uint64_t max_prompts_bytes_ = 0;
  uint64_t max_prompts_per_user_bytes_ = 0;
  std::map<engine::JobId, Charge> charges_;
  std::map<uid_t, Sum> users_;  // those who have jobs
  Sum all_;
};

// The bytes that a request's prompt takes: texts, roles, stop strings, 4 for an id.
uint64_t prompt_bytes(const engine::GenerateRequest& request);

// For a job whose receiver took too little of its results for so long.
Error slow_receiver_error(std::chrono::milliseconds timeout);

// Whether a prompt's log-probabilities are within `most`; kUsage with the numbers otherwise.
Status check_prompt_logprobs(uint64_t prompt_tokens, uint64_t logprobs, uint64_t most);

}  // namespace airllm::schedule

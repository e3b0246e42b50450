#include "engine/schedule/job_limits.h"

#include <string>
#include <utility>

#include "base/units.h"

namespace airllm::schedule {
namespace {

Unexpected too_many_jobs(const std::string& who, uint64_t jobs, const char* setting) {
  return Unexpected(
      ErrorCode::kTemporary,
      who + " " + std::to_string(jobs) + " jobs, as many as " + setting + " allows",
      std::string("try again later, or raise ") + setting + " in the daemon's settings");
}

Unexpected too_much_waits(const std::string& whose, uint64_t bytes, uint64_t limit,
                          const char* setting) {
  return Unexpected(
      ErrorCode::kTemporary,
      "the prompts of " + whose + " would take " + format_size(bytes) + "; " + setting + " is " +
          format_size(limit),
      std::string("try again later, or raise ") + setting + " in the daemon's settings");
}

}  // namespace

JobLoad::JobLoad(const engine::EngineOptions& options) { set_limits(options); }

void JobLoad::set_limits(const engine::EngineOptions& options) {
  max_jobs_ = options.max_jobs;
  max_jobs_per_user_ = options.max_jobs_per_user.value_or(options.max_jobs);
  max_prompt_bytes_ = options.max_prompt_bytes;
  max_prompts_bytes_ = options.max_prompts_bytes;
  max_prompts_per_user_bytes_ =
      options.max_prompts_per_user_bytes.value_or(options.max_prompts_bytes);
}

Status JobLoad::take(engine::JobId job, uid_t user, uint64_t bytes) {
  const auto found = users_.find(user);
  const Sum own = found == users_.end() ? Sum{} : found->second;
  const std::string name = "user " + std::to_string(user);
  if (bytes > max_prompt_bytes_) {
    return Unexpected(ErrorCode::kUsage,
                      "the prompt takes " + format_size(bytes) + "; max-prompt is " +
                          format_size(max_prompt_bytes_),
                      "shorten the prompt, or raise max-prompt in the daemon's settings");
  }
  if (own.jobs >= max_jobs_per_user_) {
    return too_many_jobs(name + " has", own.jobs, "max-jobs-per-user");
  }
  if (all_.jobs >= max_jobs_) return too_many_jobs("there are", all_.jobs, "max-jobs");
  if (own.prompt_bytes + bytes > max_prompts_per_user_bytes_) {
    return too_much_waits(name, own.prompt_bytes + bytes, max_prompts_per_user_bytes_,
                          "max-prompts-per-user");
  }
  if (all_.prompt_bytes + bytes > max_prompts_bytes_) {
    return too_much_waits("all users", all_.prompt_bytes + bytes, max_prompts_bytes_,
                          "max-prompts");
  }
  charges_.emplace(job, Charge{user, bytes});
  for (Sum* sum : {&users_[user], &all_}) {
    ++sum->jobs;
    sum->prompt_bytes += bytes;
  }
  return {};
}

void JobLoad::release(engine::JobId job) {
  const auto found = charges_.find(job);
  if (found == charges_.end()) return;
  const Charge charge = found->second;
  charges_.erase(found);
  for (Sum* sum : {&users_[charge.user], &all_}) {
    --sum->jobs;
    sum->prompt_bytes -= charge.prompt_bytes;
  }
  if (users_[charge.user].jobs == 0) users_.erase(charge.user);
}

uint64_t prompt_bytes(const engine::GenerateRequest& request) {
  uint64_t bytes = request.raw_text ? request.raw_text->size() : 0;
  if (request.prompt_ids) bytes += request.prompt_ids->size() * sizeof(int32_t);
  for (const engine::ChatMessage& message : request.messages) {
    bytes += message.role.size() + message.content.size();
  }
  for (const std::string& stop : request.stop) bytes += stop.size();
  return bytes;
}

Error slow_receiver_error(std::chrono::milliseconds timeout) {
  return {ErrorCode::kTemporary,
          "the answer was cancelled: the client has read too little of it for " +
              std::to_string(std::chrono::duration_cast<std::chrono::seconds>(timeout).count()) +
              " s (send-timeout)",
          "read faster, ask for fewer logprobs, or give the daemon a larger --send-buffer"};
}

Status check_prompt_logprobs(uint64_t prompt_tokens, uint64_t logprobs, uint64_t most) {
  if (logprobs == 0 || prompt_tokens <= most / logprobs) return {};
  return Unexpected(ErrorCode::kUsage,
                    "the log-probabilities of " + std::to_string(prompt_tokens) +
                        " prompt tokens, " + std::to_string(logprobs) +
                        " each, are more than max-logprobs allows: " + std::to_string(most),
                    "ask for fewer, shorten the prompt, or raise max-logprobs in the daemon's "
                    "settings");
}

}  // namespace airllm::schedule

// Jobs that need a model's tokenizer or chat template, but none of its weights.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <stop_token>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/schedule/loaded_model.h"

namespace airllm::schedule {

// What text jobs share.
struct TextJobs {
  // Held while one computes: a long text of one job may keep others waiting, but not the threads
  // that multiply. A job that waits for its receiver does not hold it.
  std::mutex computing;
  // How long one waits for a receiver that takes nothing.
  std::atomic<std::chrono::milliseconds> pause_timeout{std::chrono::milliseconds(10000)};
};

// Runs `request` on this thread, hands what it makes to `events` piece by piece, and gives the
// job's result. kCancelled when stopped, kTemporary when the receiver takes too little; kUsage when
// the model has no tokenizer or template, or an id is not of its vocabulary.
Result<Json> run_text_job(const LoadedModel& model, const engine::TextRequest& request,
                          TextJobs& jobs, engine::JobEvents& events, std::stop_token stop);

// The bytes that the request's input takes: of text, and 4 for an id.
uint64_t input_bytes(const engine::TextRequest& request);

}  // namespace airllm::schedule

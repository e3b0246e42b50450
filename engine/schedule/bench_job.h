// `airllm bench stream`: sweeps of one sequence that decodes, and between them what disk and memory
// could do at most.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>

#include "base/json_fwd.h"
#include "engine/engine.h"
#include "engine/schedule/generate_job.h"
#include "engine/schedule/loaded_model.h"
#include "engine/stream/ceiling_reader.h"

namespace airllm::schedule {

// Benches one after the other: two at once would measure each other, and their buffers are beyond
// the daemon's budgets. Thread-safe.
class BenchTurns {
 public:
  BenchTurns() = default;
  // What a read that hangs still writes to is never freed.
  ~BenchTurns();
  BenchTurns(const BenchTurns&) = delete;
  BenchTurns& operator=(const BenchTurns&) = delete;

  // Waits until no other bench runs. kCancelled when `stop` asks; kIo while a read of an earlier
  // one hangs.
  Status take(const std::stop_token& stop);
  // `reader` may be null; it is kept while a read of it hangs.
  void give_back(std::unique_ptr<stream::CeilingReader> reader);

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool is_taken_ = false;
  std::unique_ptr<stream::CeilingReader> hanging_;
};

// What a bench needs of the engine.
struct BenchTools {
  BenchTurns& turns;
  std::function<void(std::unique_ptr<GenerateJob>)> submit;
  std::function<uint64_t()> count_other_jobs;  // that are at work now
  stream::ReaderKind reader = stream::ReaderKind::kAuto;
  std::chrono::milliseconds read_timeout{0};
  unsigned threads = 0;
};

// Runs on a thread of its own. The result is bench_result().
Result<Json> run_bench_stream(std::shared_ptr<const LoadedModel> model,
                              const engine::BenchRequest& request, const BenchTools& tools,
                              engine::JobEvents& events, const std::shared_ptr<JobRecord>& record);

}  // namespace airllm::schedule

#include "engine/schedule/bench_job.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "engine/schedule/bench_result.h"
#include "engine/schedule/bench_sweeps.h"

namespace airllm::schedule {
namespace {

// A ceiling of the disk is measured over what a sweep reads, for so long.
constexpr auto kLeastReading = std::chrono::milliseconds(200);
constexpr auto kMostReading = std::chrono::milliseconds(2000);
// Where a sweep reads nothing.
constexpr uint64_t kUnstreamedBytes = 64 * kMiB;

// One token, so that the first sweep is like the others: one of a text's, where the model knows
// texts.
Result<std::vector<int32_t>> bench_prompt(const LoadedModel& model) {
  if (!model.tokenizer) return std::vector<int32_t>{0};
  engine::GenerateRequest request;
  request.raw_text = "The";
  AIRLLM_TRY(const std::vector<int32_t> ids, model.encode_prompt(request));
  return std::vector<int32_t>{ids.empty() ? 0 : ids.back()};
}

class StreamBench {
 public:
  StreamBench(std::shared_ptr<const LoadedModel> model, const engine::BenchRequest& request,
              const BenchTools& tools, engine::JobEvents& events,
              const std::shared_ptr<JobRecord>& record)
      : model_(std::move(model)),
        request_(request),
        tools_(tools),
        events_(events),
        record_(record),
        sweeps_(std::make_shared<BenchSweeps>(events)) {}

  // With the turn taken.
  Result<Json> run() {
    AIRLLM_TRY_VOID(submit());
    const Status status = measure();
    sweeps_->stop();
    if (const std::optional<Error> error = sweeps_->end_error()) return Unexpected(*error);
    AIRLLM_TRY_VOID(status);
    BenchSetup setup = sweeps_->setup();
    setup.model = model_->name();
    setup.threads = tools_.threads;
    setup.ceiling_reader = reader_->reader_name();
    setup.ceiling_disk_bytes = ceiling_bytes_;
    setup.other_jobs = std::max(setup.other_jobs, other_jobs_);
    return bench_result(setup, rounds_);
  }
  std::unique_ptr<stream::CeilingReader> take_reader() { return std::move(reader_); }

 private:
  Status submit() {
    engine::GenerateRequest request;
    request.model = model_->ref();
    request.user = request_.user;
    request.sampling.temperature = 0;
    request.ignore_eos = true;
    request.max_tokens = request_.sweeps + 2;  // never come to: the job is ended before
    AIRLLM_TRY(std::vector<int32_t> prompt, bench_prompt(*model_));
    auto job = std::make_unique<GenerateJob>(record_, model_, request, std::move(prompt), sweeps_);
    job->observe_by(sweeps_);
    job->accept();
    tools_.submit(std::move(job));
    return {};
  }

  // Ends early, and well, when the job has ended.
  Status measure() {
    if (!sweeps_->wait_for_round()) return {};
    AIRLLM_TRY(reader_, stream::CeilingReader::create(sweeps_->extents(), tools_.reader, model_));
    while (rounds_.size() < request_.sweeps) {
      events_.on_progress({"bench", rounds_.size(), request_.sweeps, "sweeps"});
      note_other_jobs();
      sweeps_->go_on();
      std::optional<BenchRound> round = sweeps_->wait_for_round();
      if (!round) return {};
      AIRLLM_TRY(const stream::ReadRate rate,
                 reader_->measure(limits(*round), record_->stop_token()));
      round->disk_ceiling = static_cast<double>(rate.bytes) / rate.seconds;
      ceiling_bytes_ = std::max(ceiling_bytes_, rate.bytes);
      note_other_jobs();
      rounds_.push_back(*round);
    }
    return {};
  }

  stream::CeilingLimits limits(const BenchRound& round) const {
    return {sweeps_->setup().streams ? round.disk_bytes : kUnstreamedBytes, kLeastReading,
            kMostReading, tools_.read_timeout};
  }

  void note_other_jobs() { other_jobs_ = std::max(other_jobs_, tools_.count_other_jobs()); }

  const std::shared_ptr<const LoadedModel> model_;
  const engine::BenchRequest& request_;
  const BenchTools& tools_;
  engine::JobEvents& events_;
  const std::shared_ptr<JobRecord>& record_;
  const std::shared_ptr<BenchSweeps> sweeps_;
  std::unique_ptr<stream::CeilingReader> reader_;
  std::vector<BenchRound> rounds_;
  uint64_t ceiling_bytes_ = 0;
  uint64_t other_jobs_ = 0;
};

}  // namespace

BenchTurns::~BenchTurns() {
  if (hanging_ && !hanging_->is_back()) static_cast<void>(hanging_.release());
}

Status BenchTurns::take(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait(lock, stop, [this] { return !is_taken_; })) {
    return Unexpected(ErrorCode::kCancelled, "cancelled");
  }
  if (hanging_ && !hanging_->is_back()) {
    return Unexpected(ErrorCode::kIo, "a read of an earlier bench still hangs",
                      "check the disk (dmesg tells of its errors), then restart the daemon");
  }
  hanging_.reset();
  is_taken_ = true;
  return {};
}

void BenchTurns::give_back(std::unique_ptr<stream::CeilingReader> reader) {
  {
    const std::lock_guard lock(mutex_);
    if (reader && !reader->is_back()) hanging_ = std::move(reader);
    is_taken_ = false;
  }
  changed_.notify_one();
}

Result<Json> run_bench_stream(std::shared_ptr<const LoadedModel> model,
                              const engine::BenchRequest& request, const BenchTools& tools,
                              engine::JobEvents& events, const std::shared_ptr<JobRecord>& record) {
  record->update([](engine::JobInfo& info) { info.state = "queued"; });
  AIRLLM_TRY_VOID(tools.turns.take(record->stop_token()));
  StreamBench bench(std::move(model), request, tools, events, record);
  Result<Json> result = bench.run();
  tools.turns.give_back(bench.take_reader());
  return result;
}

}  // namespace airllm::schedule

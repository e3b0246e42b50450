// Benches of the bundled model, in an Engine.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/units.h"
#include "tests/engine/schedule/engine_harness.h"

namespace airllm::engine {
namespace {

using testing::EngineTest;
using testing::RecordedJob;

// Also what a bench says of its progress.
class BenchJob : public RecordedJob {
 public:
  void on_progress(const Progress& step) override {
    if (step.stage != "bench") return;
    EXPECT_EQ(step.unit, "sweeps");
    sweeps = step.done;
    has_begun = true;
  }
  std::atomic<uint64_t> sweeps{0};
  std::atomic<bool> has_begun{false};
};

class BenchTest : public EngineTest {
 protected:
  void open_with_model(uint64_t ram_bytes) {
    open(ram_bytes);
    split(demo_directory(), "demo");
  }

  std::shared_ptr<BenchJob> start_bench(uint64_t sweeps, JobId* id_out = nullptr) {
    auto job = std::make_shared<BenchJob>();
    const auto id = engine->bench_stream({.model = "demo", .sweeps = sweeps}, job);
    EXPECT_TRUE(id) << id.error().message;
    if (id && id_out != nullptr) *id_out = *id;
    return job;
  }

  Json bench(uint64_t sweeps) {
    const auto job = start_bench(sweeps);
    job->wait();
    EXPECT_FALSE(job->error) << job->error->message;
    return job->done.value_or(Json());
  }

  void wait_until_it_measures(const BenchJob& job) {
    while (!job.has_begun) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
};

void expect_sound(const Json& result) {
  for (const Json& run : result["runs"]) {
    const double seconds = run["seconds"].get<double>();
    EXPECT_GT(seconds, 0);
    EXPECT_NEAR(run["waiting_seconds"].get<double>() + run["computing_seconds"].get<double>(),
                seconds, 1e-9);
    EXPECT_GE(run["reading_seconds"].get<double>(), 0);
    EXPECT_LE(run["reading_seconds"].get<double>(), seconds);
    EXPECT_GT(run["disk_ceiling_bytes_per_second"].get<uint64_t>(), 0U);
  }
  EXPECT_EQ(result["lost_reads"], 0U);
}

TEST_F(BenchTest, WhatStreamsIsReadInEverySweep) {
  open_with_model(kMiB);
  const Json result = bench(3);
  expect_sound(result);
  EXPECT_EQ(result["model"], "demo");
  EXPECT_EQ(result["sweeps"], 3U);
  EXPECT_FALSE(result["cold_sweep_seconds"].is_null());
  const Json& disk = result["tiers"][0];
  const Json& ram = result["tiers"][1];
  EXPECT_GT(disk["bytes_per_sweep"].get<uint64_t>(), 2 * kMiB);
  EXPECT_GT(disk["ratio"].get<double>(), 0);
  EXPECT_GE(ram["bytes_per_sweep"].get<uint64_t>(), disk["bytes_per_sweep"].get<uint64_t>());
  for (const Json& run : result["runs"]) {
    // A sweep reads what it uses, but for what the ring held at its ends.
    const double read = run["disk_bytes_per_second"].get<double>() * run["seconds"].get<double>();
    EXPECT_NEAR(read, run["disk_bytes"].get<double>(), 0.5 * kMiB);
  }
}

TEST_F(BenchTest, NothingIsReadWhenAllIsInMemory) {
  open_with_model(64 * kMiB);
  const Json first = bench(2);
  expect_sound(first);
  EXPECT_FALSE(first["cold_sweep_seconds"].is_null());
  const Json again = bench(2);
  EXPECT_TRUE(again["cold_sweep_seconds"].is_null());
  for (const Json& result : {first, again}) {
    const Json& disk = result["tiers"][0];
    EXPECT_EQ(disk["bytes_per_sweep"], 0U);
    EXPECT_TRUE(disk["ratio"].is_null());
    EXPECT_GT(disk["ceiling_bytes_per_second"].get<uint64_t>(), 0U);
    EXPECT_GT(result["tiers"][1]["ratio"].get<double>(), 0);
    EXPECT_NE(result["bound"], "disk");
  }
}

TEST_F(BenchTest, OtherJobsGetTheirAnswersMeanwhile) {
  open_with_model(kMiB);
  const auto expected = run(question("What is the capital of France?"));
  JobId id = 0;
  const auto job = start_bench(1000, &id);
  wait_until_it_measures(*job);
  const auto asked = run(question("What is the capital of France?"));
  EXPECT_EQ(asked->text, expected->text);
  EXPECT_FALSE(job->is_over());
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
  ASSERT_TRUE(job->error);
  EXPECT_EQ(job->error->code, ErrorCode::kCancelled);
}

TEST_F(BenchTest, TellsThatOthersWereAtWork) {
  open_with_model(kMiB);
  auto request = question("Tell me all.");
  request.ignore_eos = true;
  request.max_tokens = 100000;
  JobId id = 0;
  const auto other = start(request, &id);
  other->wait_for_tokens(1);
  EXPECT_GE(bench(1)["other_jobs"].get<uint64_t>(), 1U);
  ASSERT_TRUE(engine->cancel(id));
  other->wait();
}

TEST_F(BenchTest, TwoRunOneAfterTheOtherAndOneThatWaitsCanBeCancelled) {
  open_with_model(kMiB);
  JobId first_id = 0;
  JobId waiting_id = 0;
  const auto first = start_bench(1000, &first_id);
  wait_until_it_measures(*first);
  const auto waiting = start_bench(1, &waiting_id);
  const auto next = start_bench(1);
  ASSERT_TRUE(engine->cancel(waiting_id));
  waiting->wait();
  EXPECT_FALSE(waiting->has_begun);
  ASSERT_TRUE(waiting->error);
  EXPECT_EQ(waiting->error->code, ErrorCode::kCancelled);
  EXPECT_FALSE(next->has_begun);
  ASSERT_TRUE(engine->cancel(first_id));
  next->wait();
  EXPECT_FALSE(next->error) << next->error->message;
}

TEST_F(BenchTest, KeepsItsModelInMemory) {
  open_with_model(kMiB);
  JobId id = 0;
  const auto job = start_bench(1000, &id);
  wait_until_it_measures(*job);
  const auto stopping = std::make_shared<RecordedJob>();
  const auto stopped = engine->stop("demo", 0, stopping);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kTemporary);
  EXPECT_FALSE(engine->remove("demo"));
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
}

TEST_F(BenchTest, MoreSweepsThanTheContextHoldsAreRefusedByNumber) {
  open_with_model(64 * kMiB);
  engine.reset();
  open(64 * kMiB, 200 * kKiB);  // keys and values of 32 tokens
  const auto job = start_bench(1000);
  job->wait();
  ASSERT_TRUE(job->error);
  EXPECT_EQ(job->error->code, ErrorCode::kConfig);
  EXPECT_NE(job->error->remedy.find("--sweeps"), std::string::npos);
}

TEST_F(BenchTest, EndsWithTheEngine) {
  open_with_model(kMiB);
  const auto job = start_bench(1000);
  wait_until_it_measures(*job);
  engine.reset();
  EXPECT_TRUE(job->is_over());
}

TEST_F(BenchTest, AModelThatIsNotThereIsAnError) {
  open_with_model(kMiB);
  auto job = std::make_shared<BenchJob>();
  ASSERT_TRUE(engine->bench_stream({.model = "nothing"}, job));
  job->wait();
  ASSERT_TRUE(job->error);
  EXPECT_EQ(job->error->code, ErrorCode::kNoInput);
}

}  // namespace
}  // namespace airllm::engine

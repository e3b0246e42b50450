// How long models keep their memory.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "base/units.h"
#include "tests/engine/schedule/engine_harness.h"

namespace airllm::engine {
namespace {

using testing::EngineTest;
using testing::RecordedJob;

class ModelMemory : public EngineTest {
 protected:
  void SetUp() override {
    open(64 * kMiB);
    ASSERT_TRUE(split(demo_directory(), "demo")->done);
  }

  std::shared_ptr<RecordedJob> stop(const std::string& model) {
    auto job = std::make_shared<RecordedJob>();
    const auto id = engine->stop(model, 7, job);
    EXPECT_TRUE(id) << id.error().message;
    job->wait();
    return job;
  }

  // Those in memory, by name.
  std::vector<std::string> in_memory() const {
    std::vector<std::string> names;
    const Json status = engine->status({});
    for (const Json& model : status["models"]) names.push_back(model["name"].get<std::string>());
    return names;
  }

  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 6000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  static GenerateRequest endless(const std::string& model) {
    GenerateRequest request = question("Hello", model);
    request.ignore_eos = true;
    request.max_tokens = 900;
    return request;
  }
};

TEST_F(ModelMemory, AStopGivesAnIdleModelsMemoryBackAtOnce) {
  run(question("Hello"));
  const uint64_t used = engine->status({})["ram_used_bytes"].get<uint64_t>();
  EXPECT_GT(used, 4 * kMiB);
  const auto stopped = stop("demo");
  ASSERT_TRUE(stopped->done);
  EXPECT_EQ((*stopped->done)["was_in_memory"], true);
  EXPECT_EQ((*stopped->done)["freed_bytes"], used);
  EXPECT_EQ(engine->status({})["ram_used_bytes"], 0U);
  EXPECT_TRUE(engine->jobs().empty());
  EXPECT_EQ((*stop("demo")->done)["was_in_memory"], false);
  // It is read anew when it is asked again.
  const auto again = run(question("What is the capital of France?"));
  ASSERT_TRUE(again->result);
  EXPECT_GT(again->result->read_bytes, 4 * kMiB);
  EXPECT_NE(again->text.find("Paris"), std::string::npos);
}

TEST_F(ModelMemory, AStopDisturbsNoJobAndNamesItsUser) {
  GenerateRequest request = endless("demo");
  request.user = 4711;
  JobId id = 0;
  const auto job = start(request, &id);
  job->wait_for_tokens(1);
  const auto refused = engine->stop("demo", 7, std::make_shared<RecordedJob>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTemporary);
  EXPECT_NE(refused.error().message.find("job " + std::to_string(id) + " of user 4711"),
            std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(job->is_over());
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
  EXPECT_EQ(job->result->finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(stop("demo")->done);
}

TEST_F(ModelMemory, AStopDoesNotWaitForAnotherModelsJobs) {
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  run(question("Hello", "other"));
  JobId id = 0;
  const auto job = start(endless("demo"), &id);
  job->wait_for_tokens(1);
  EXPECT_EQ(in_memory(), (std::vector<std::string>{"other", "demo"}));
  EXPECT_EQ((*stop("other")->done)["was_in_memory"], true);
  EXPECT_FALSE(job->is_over());
  EXPECT_EQ(in_memory(), std::vector<std::string>{"demo"});
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
}

}  // namespace
}  // namespace airllm::engine

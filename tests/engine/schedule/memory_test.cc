// How long models keep their memory.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
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

  void open_with(std::chrono::milliseconds keep_alive, std::vector<std::string> keep = {},
                 uint64_t ram_bytes = 64 * kMiB) {
    EngineOptions options;
    options.ram_bytes = ram_bytes;
    options.kv_bytes = 16 * kMiB;
    options.threads = 2;
    options.keep_alive = keep_alive;
    options.keep = std::move(keep);
    open(options);
  }

  // What status() says of the model, which must be in memory.
  Json row(const std::string& name) const {
    const Json status = engine->status({});
    for (const Json& model : status["models"]) {
      if (model["name"] == name) return model;
    }
    ADD_FAILURE() << name << " is not in memory";
    return Json::object();
  }

  // The same once its last job has left the engine, which is a moment after its last event.
  Json idle_row(const std::string& name) const {
    EXPECT_TRUE(eventually([&] { return row(name)["in_use"] == false; }));
    return row(name);
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

TEST_F(ModelMemory, AModelThatNobodyAsksGoes) {
  open_with(std::chrono::milliseconds(300));
  run(question("Hello"));
  EXPECT_TRUE(eventually([&] { return in_memory().empty(); }));
  EXPECT_EQ(engine->status({})["ram_used_bytes"], 0U);
  EXPECT_GT(run(question("Hello"))->result->read_bytes, 4 * kMiB);
}

TEST_F(ModelMemory, AModelThatIsInUseStays) {
  open_with(std::chrono::milliseconds(0));
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  JobId id = 0;
  const auto job = start(endless("demo"), &id);
  job->wait_for_tokens(1);
  // It waits for the other one to end, and keeps nothing in memory so long.
  const auto waiting = start(question("Hello", "other"));
  job->wait_for_tokens(20);
  EXPECT_EQ(row("demo")["in_use"], true);
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
  waiting->wait();
  EXPECT_TRUE(waiting->result);
  EXPECT_TRUE(eventually([&] { return in_memory().empty(); }));
}

TEST_F(ModelMemory, AModelGoesThoughAnotherIsAskedAllTheTime) {
  open_with(std::chrono::milliseconds(100));
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  run(question("Hello", "other"));
  JobId id = 0;
  const auto job = start(endless("demo"), &id);
  EXPECT_TRUE(eventually([&] { return in_memory() == std::vector<std::string>{"demo"}; }));
  EXPECT_FALSE(job->is_over());
  ASSERT_TRUE(engine->cancel(id));
  job->wait();
}

TEST_F(ModelMemory, AJobMaySayHowLongItsModelStays) {
  open_with(kForever);
  GenerateRequest request = question("Hello");
  run(request);
  EXPECT_EQ(idle_row("demo")["expires_seconds"], nullptr);
  request.keep_alive = std::chrono::hours(1);
  run(request);
  const Json seconds = idle_row("demo")["expires_seconds"];
  ASSERT_TRUE(seconds.is_number());
  EXPECT_GT(seconds.get<double>(), 3000);
  EXPECT_LE(seconds.get<double>(), 3600);
  request.keep_alive = std::chrono::milliseconds(0);
  run(request);
  EXPECT_TRUE(eventually([&] { return in_memory().empty(); }));
}

TEST_F(ModelMemory, TheTimeCanChangeWhileTheEngineRuns) {
  open_with(kForever);
  run(question("Hello"));
  EXPECT_EQ(in_memory(), std::vector<std::string>{"demo"});
  EngineOptions changed;
  changed.keep_alive = std::chrono::hours(1);
  engine->apply(changed);
  EXPECT_TRUE(eventually([&] { return row("demo")["expires_seconds"] != nullptr; }));
  changed.keep_alive = std::chrono::milliseconds(1);
  engine->apply(changed);
  EXPECT_TRUE(eventually([&] { return in_memory().empty(); }));
}

TEST_F(ModelMemory, AKeptModelStaysAndIsNamedWhereItLeavesNoRoom) {
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  open_with(std::chrono::milliseconds(0), {"demo"}, kMiB);
  run(question("Hello"));
  EXPECT_EQ(row("demo")["kept"], true);
  EXPECT_EQ(row("demo")["expires_seconds"], nullptr);
  const auto refused = run(question("Hello", "other"));
  ASSERT_TRUE(refused->error);
  EXPECT_EQ(refused->error->code, ErrorCode::kConfig);
  EXPECT_NE(refused->error->message.find("the setting keep holds demo in memory"),
            std::string::npos)
      << refused->error->message;
  EXPECT_NE(refused->error->remedy.find("keep"), std::string::npos);
  EXPECT_EQ(in_memory(), std::vector<std::string>{"demo"});
  // Out of the setting, it makes room as others do.
  EngineOptions changed;
  changed.keep_alive = kForever;
  engine->apply(changed);
  EXPECT_TRUE(run(question("Hello", "other"))->result);
  EXPECT_EQ(in_memory(), std::vector<std::string>{"other"});
}

TEST_F(ModelMemory, AStopTakesAKeptModelToo) {
  open_with(kForever, {"demo"});
  run(question("Hello"));
  EXPECT_EQ((*stop("demo")->done)["was_in_memory"], true);
  EXPECT_TRUE(in_memory().empty());
}

TEST_F(ModelMemory, AModelMakesNoRoomWhereBothFit) {
  ASSERT_TRUE(split(demo_directory(), "other")->done);
  run(question("Hello", "demo"));
  run(question("Hello", "other"));
  EXPECT_EQ(in_memory(), (std::vector<std::string>{"demo", "other"}));
  EXPECT_EQ(run(question("Hello", "demo"))->result->read_bytes, 0U);
}

class UnderPressure : public ModelMemory {
 protected:
  UnderPressure() {
    say("some avg10=0.00\nfull avg10=0.00\n");
    ::setenv("AIRLLM_DEBUG_PRESSURE", path().c_str(), 1);
  }
  ~UnderPressure() override { ::setenv("AIRLLM_DEBUG_PRESSURE", "/nonexistent", 1); }

  std::string path() const { return file_.path() + "/pressure"; }
  void say(const std::string& text) const {
    std::ofstream(path() + ".new") << text;
    replace();
  }
  void replace() const { std::filesystem::rename(path() + ".new", path()); }
  void say_high() const { say("some avg10=50.00\nfull avg10=20.00\n"); }

  uint64_t budget() const { return engine->status({})["ram_budget_bytes"].get<uint64_t>(); }
  // What the model takes when all of it fits.
  uint64_t whole() {
    open_with(kForever);
    run(question("Hello"));
    return engine->status({})["ram_used_bytes"].get<uint64_t>();
  }

 private:
  testing::TemporaryFolder file_;
};

TEST_F(UnderPressure, AnIdleModelThatDoesNotFitAnyMoreGoes) {
  const uint64_t ram = whole();
  open_with(kForever, {}, ram);
  run(question("Hello"));
  EXPECT_EQ(budget(), ram);
  say_high();
  EXPECT_TRUE(eventually([&] { return in_memory().empty(); }));
  EXPECT_EQ(budget(), ram - ram / 4);
  const Json status = engine->status({});
  EXPECT_NE(status["ram_budget_reason"].get<std::string>().find("full 20.0 %"), std::string::npos);
  // The next one keeps to what is left, and answers alike.
  const auto job = run(question("What is the capital of France?"));
  ASSERT_TRUE(job->result);
  EXPECT_NE(job->text.find("Paris"), std::string::npos);
  EXPECT_LE(engine->status({})["ram_used_bytes"].get<uint64_t>(), ram - ram / 4);
}

TEST_F(UnderPressure, AModelInUseGetsASmallerPlanAndItsJobGoesOnAsIfNothingHadBeen) {
  const uint64_t all = whole();
  for (const uint64_t ram : {all, 3 * kMiB}) {  // all of it in memory, and most of it streamed
    say("some avg10=0.00\nfull avg10=0.00\n");
    open_with(kForever, {}, ram);
    GenerateRequest request = endless("demo");
    request.max_tokens = 400;
    const auto alone = run(request);
    ASSERT_TRUE(alone->result);
    const auto job = start(request);
    job->wait_for_tokens(5);
    say_high();
    EXPECT_TRUE(eventually(
        [&] { return engine->status({})["ram_used_bytes"].get<uint64_t>() <= ram - ram / 4; }));
    EXPECT_FALSE(job->is_over());
    say("some avg10=0.00\nfull avg10=0.00\n");
    job->wait();
    ASSERT_TRUE(job->result);
    EXPECT_EQ(job->ids, alone->ids);
    // Nothing was computed twice.
    EXPECT_EQ(job->result->sweeps, alone->result->sweeps);
  }
}

}  // namespace
}  // namespace airllm::engine

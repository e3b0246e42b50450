#include "engine/schedule/job_limits.h"

#include <gtest/gtest.h>

namespace airllm::schedule {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

engine::EngineOptions small_limits() {
  engine::EngineOptions options;
  options.max_jobs = 4;
  options.max_jobs_per_user = 3;
  options.max_prompt_bytes = 2 * kMiB;
  options.max_prompts_bytes = 6 * kMiB;
  options.max_prompts_per_user_bytes = 4 * kMiB;
  return options;
}

// A refusal names the limit's value and the setting.
void expect_refused(const Status& status, ErrorCode code, const std::string& value,
                    const std::string& setting) {
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, code);
  EXPECT_NE(status.error().message.find(value), std::string::npos) << status.error().message;
  EXPECT_NE(status.error().remedy.find("raise " + setting + " in"), std::string::npos)
      << status.error().remedy;
}

TEST(JobLoad, AUserHasSoManyJobsAndOthersFindAPlace) {
  JobLoad load(small_limits());
  for (engine::JobId job : {1, 2, 3}) ASSERT_TRUE(load.take(job, 7, 0));
  expect_refused(load.take(4, 7, 0), ErrorCode::kTemporary, "user 7 has 3 jobs",
                 "max-jobs-per-user");
  EXPECT_TRUE(load.take(5, 8, 0));
  expect_refused(load.take(6, 0, 0), ErrorCode::kTemporary, "there are 4 jobs", "max-jobs");
  load.release(2);
  EXPECT_TRUE(load.take(7, 7, 0));
}

TEST(JobLoad, APromptHasALongest) {
  JobLoad load(small_limits());
  EXPECT_TRUE(load.take(1, 7, 2 * kMiB));
  expect_refused(load.take(2, 7, 2 * kMiB + 1), ErrorCode::kUsage, "max-prompt is 2", "max-prompt");
}

TEST(JobLoad, WaitingPromptsAreCountedForTheUserAndInAll) {
  JobLoad load(small_limits());
  ASSERT_TRUE(load.take(1, 7, 2 * kMiB));
  ASSERT_TRUE(load.take(2, 7, 2 * kMiB));
  expect_refused(load.take(3, 7, 1), ErrorCode::kTemporary, "max-prompts-per-user is 4",
                 "max-prompts-per-user");
  ASSERT_TRUE(load.take(3, 8, 2 * kMiB));
  expect_refused(load.take(4, 9, 1), ErrorCode::kTemporary, "max-prompts is 6", "max-prompts");
  load.release(1);
  EXPECT_TRUE(load.take(4, 9, 1));
}

TEST(JobLoad, WithoutALimitOfItsOwnAUserMayTakeAll) {
  engine::EngineOptions options;
  options.max_jobs = 16;
  JobLoad load(options);
  for (engine::JobId job = 1; job <= 16; ++job) ASSERT_TRUE(load.take(job, 7, 0));
  EXPECT_FALSE(load.take(17, 7, 0));
  EXPECT_FALSE(load.take(17, 8, 0));
}

TEST(JobLoad, EndedJobsLeaveNothingBehind) {
  JobLoad load(small_limits());
  for (engine::JobId job = 1; job < 1000; ++job) {
    ASSERT_TRUE(load.take(job, 7, 2 * kMiB));
    load.release(job);
    load.release(job);
  }
  for (engine::JobId job : {1, 2}) ASSERT_TRUE(load.take(job, 7, 2 * kMiB));
}

TEST(PromptBytes, AreThoseOfAllThatTheRequestHolds) {
  engine::GenerateRequest request;
  request.messages = {{"user", "1234"}, {"system", ""}};
  request.stop = {"ab"};
  EXPECT_EQ(prompt_bytes(request), 4U + 4 + 6 + 2);
  request = {};
  request.prompt_ids = std::vector<int32_t>(10);
  EXPECT_EQ(prompt_bytes(request), 40U);
}

TEST(PromptLogprobs, AreRefusedWithTheNumbers) {
  EXPECT_TRUE(check_prompt_logprobs(100, 0, 1));
  EXPECT_TRUE(check_prompt_logprobs(100, 10, 1000));
  const Status refused = check_prompt_logprobs(101, 10, 1000);
  expect_refused(refused, ErrorCode::kUsage, "101 prompt tokens, 10 each", "max-logprobs");
  EXPECT_NE(refused.error().message.find("allows: 1000"), std::string::npos);
  EXPECT_FALSE(check_prompt_logprobs(~uint64_t{0}, ~uint64_t{0}, 1000));
}

}  // namespace
}  // namespace airllm::schedule

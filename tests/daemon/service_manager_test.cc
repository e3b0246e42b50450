#include "daemon/service_manager.h"

#include <gtest/gtest.h>

#include "daemon/journal.h"

namespace airllm::daemon {
namespace {

engine::JobInfo job(const std::string& model, const std::string& state) {
  engine::JobInfo info;
  info.model = model;
  info.state = state;
  return info;
}

TEST(ServiceManager, StatusCountsAndNamesNothing) {
  EXPECT_EQ(describe_jobs({}, 0), "Idle: no models, no jobs");
  EXPECT_EQ(describe_jobs({}, 1), "Idle: 1 model, no jobs");
  EXPECT_EQ(describe_jobs({job("secret", "queued")}, 3), "Running no jobs, 1 waiting");
  EXPECT_EQ(describe_jobs({job("a", "decode"), job("a", "prefill")}, 0),
            "Running 2 jobs of 1 model");
  EXPECT_EQ(describe_jobs({job("a", "decode"), job("b", "running"), job("c", "queued")}, 0),
            "Running 2 jobs of 2 models, 1 waiting");
}

TEST(Journal, AnEntryHasItsFieldsAndForgesNoLine) {
  const std::vector<log::Field> fields{{log::kModelField, "x\nMESSAGE_ID=forged"}};
  const std::vector<std::string> entry = journal_entry(log::event::kJobFailed, "a\nb", fields);
  ASSERT_EQ(entry.size(), 5U);
  EXPECT_EQ(entry[1], "MESSAGE_ID=a520c0a409f244d4b4807a74708e60a9");
  EXPECT_EQ(entry[2], "PRIORITY=4");
  EXPECT_EQ(entry[3], "SYSLOG_IDENTIFIER=airllmd");
  EXPECT_TRUE(entry[4].starts_with("AIRLLM_MODEL=x"));
  for (const std::string& field : entry) {
    EXPECT_EQ(field.find('\n'), std::string::npos) << field;
  }
}

}  // namespace
}  // namespace airllm::daemon

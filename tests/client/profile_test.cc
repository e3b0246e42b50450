// What becomes of a profile's events: the summary's numbers, and the trace file.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>

#include "base/json.h"
#include "client/profile_summary.h"
#include "client/trace_file.h"

namespace airllm::client {
namespace {

protocol::Profile sample_profile() {
  constexpr uint64_t kSecond = 1000000000;
  return {{{"sweep", 0, 0, 2 * kSecond, "", 0, 3 << 20, 1 << 20, 5, 6},
           {"stage", 0, 0, kSecond, "layer 0", 0, 1 << 20, 0, 0, 0},
           {"stage", 0, kSecond, kSecond / 2, "head", 0, 1 << 20, 0, 0, 0},
           {"wait", 0, 10, kSecond / 2, "", 0, 0, 0, 0, 0},
           {"read", 1, 0, kSecond, "001-layer-000", 4096, 1 << 30, 0, 0, 0},
           {"read", 2, kSecond / 2, kSecond, "", 0, 1 << 30, 0, 0, 0}},
          0};
}

protocol::Generated sample_end() {
  protocol::Generated end{"stop", 3, 4, 0, 0, 4000, 1, 3 << 20, 1 << 20};
  return end;
}

TEST(ProfileSummary, TellsSharesOfTheWholeTime) {
  ProfileSummary summary;
  summary.add(sample_profile());
  const std::string text = summary.text(sample_end());
  for (const char* part :
       {"4.000 s, 1 sweeps, 4 tokens", "computing     1.500 s   37.5 %",
        "waiting       0.500 s   12.5 %", "reading       1.500 s   37.5 %",
        "read 2 GiB at 1.43 GB/s in 2 reads; used 3 MiB from disk, 1 MiB from memory",
        "rows: 5 of this job, 6 of others"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_LT(text.find("layer 0"), text.find("head"));
  EXPECT_EQ(text.find("left out"), std::string::npos);
}

TEST(ProfileSummary, TellsWhatIsMissing) {
  ProfileSummary summary;
  EXPECT_NE(summary.text(sample_end()).find("older"), std::string::npos);
  summary.add(protocol::Profile{{}, 9});
  const std::string text = summary.text(sample_end());
  EXPECT_NE(text.find("9 events are left out"), std::string::npos);
  EXPECT_EQ(text.find("older"), std::string::npos);
}

TEST(ProfileSummary, AHostileDaemonsNumbersAndNamesDoNoHarm) {
  constexpr auto kLeast = std::numeric_limits<int64_t>::min();
  constexpr auto kMost = std::numeric_limits<uint64_t>::max();
  protocol::Profile profile;
  for (int i = 0; i < 10000; ++i) {
    profile.events.push_back(
        {"stage", 0, 0, kMost, "\x1b[2J" + std::to_string(i), 0, kMost, kMost, 0, 0});
    profile.events.push_back({"read", kMost, kLeast, kMost, "", kMost, kMost, 0, 0, 0});
  }
  ProfileSummary summary;
  summary.add(profile);
  const std::string text = summary.text(sample_end());
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 24);  // one screen
}

class TraceFileTest : public ::testing::Test {
 protected:
  ~TraceFileTest() override { std::remove(path_.c_str()); }
  Json contents() const {
    std::ifstream file(path_);
    return Json::parse(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  const std::string path_ = ::testing::TempDir() + "airllm-trace-" +
                            ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(TraceFileTest, HoldsEachEventWithItsThread) {
  Result<TraceFile> file = TraceFile::create(path_);
  ASSERT_TRUE(file);
  protocol::Accepted accepted;
  accepted.model = "demo";
  ASSERT_TRUE(file->begin(accepted));
  for (const auto& event : sample_profile().events) ASSERT_TRUE(file->add(event));
  ASSERT_TRUE(file->finish());
  const Json trace = contents();
  const Json& events = trace["traceEvents"];
  ASSERT_EQ(events.size(), 6U + 1 + 3);  // the process's name, three threads' names
  Json last = events.back();
  EXPECT_EQ(last["ph"], "X");
  EXPECT_EQ(last["ts"], 500000.0);
  EXPECT_EQ(last["dur"], 1000000.0);
  EXPECT_EQ(last["tid"], 3);
  EXPECT_EQ(last["args"], Json({{"bytes", 1 << 30}}));
}

TEST_F(TraceFileTest, AJobThatBeginsAnewLeavesNothingOfTheFirst) {
  Result<TraceFile> file = TraceFile::create(path_);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->begin({}));
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(file->add(sample_profile().events[0]));
  ASSERT_TRUE(file->begin({}));
  ASSERT_TRUE(file->finish());
  EXPECT_EQ(contents()["traceEvents"].size(), 1U);
}

TEST_F(TraceFileTest, WithoutAJobItIsATraceOfNothing) {
  Result<TraceFile> file = TraceFile::create(path_);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->finish());
  EXPECT_TRUE(contents()["traceEvents"].empty());
}

TEST_F(TraceFileTest, AFullDiskIsTold) {
  Result<TraceFile> file = TraceFile::create("/dev/full");
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->begin({}));
  const Status ended = file->finish();
  ASSERT_FALSE(ended);
  EXPECT_NE(ended.error().message.find("/dev/full"), std::string::npos);
}

TEST_F(TraceFileTest, AFolderThatIsNotThereIsToldAtOnce) {
  const Result<TraceFile> file = TraceFile::create("/nonexistent/trace.json");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kCannotCreate);
}

}  // namespace
}  // namespace airllm::client

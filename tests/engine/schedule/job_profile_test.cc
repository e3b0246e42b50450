#include "engine/schedule/job_profile.h"

#include <gtest/gtest.h>

namespace airllm::schedule {
namespace {

class Receiver : public engine::JobEvents {
 public:
  void on_profile(std::span<const engine::ProfileEvent> events, uint64_t lost) override {
    told.insert(told.end(), events.begin(), events.end());
    most_at_once = std::max(most_at_once, events.size());
    last_lost = lost;
  }
  uint64_t room_bytes() const override { return room; }

  std::vector<engine::ProfileEvent> told;
  size_t most_at_once = 0;
  uint64_t last_lost = 0;
  uint64_t room = kUnlimitedRoom;
};

std::vector<model::StageSpec> two_stages() {
  std::vector<model::StageSpec> stages(2);
  stages[0].kind = model::StageSpec::Kind::kEmbedding;
  stages[0].shard_name = "000-embedding";
  stages[1].kind = model::StageSpec::Kind::kLayer;
  stages[1].layer = 7;
  stages[1].shard_name = "008-layer-007";
  return stages;
}

stream::Span span_of(stream::Span::Kind kind, uint32_t index, Clock::time_point start) {
  stream::Span span;
  span.kind = kind;
  span.index = index;
  span.begin = start + std::chrono::microseconds(3);
  span.end = start + std::chrono::microseconds(5);
  return span;
}

TEST(JobProfile, TellsWhatWasRecordedInTheJobsTime) {
  const Clock::time_point start = Clock::now();
  Receiver receiver;
  JobProfile profile(receiver, two_stages(), start);
  stream::Span read = span_of(stream::Span::Kind::kRead, 1, start);
  read.reader = 2;
  read.offset_bytes = 4096;
  const stream::Span hidden =
      span_of(stream::Span::Kind::kRead, stream::Span::kUntold, start - std::chrono::seconds(1));
  profile.begin_sweep(start, {3, 4});
  profile.add({{span_of(stream::Span::Kind::kStage, 1, start), read, hidden}, 0});
  EXPECT_TRUE(receiver.told.empty());
  profile.end_sweep({10, 20, 0});
  ASSERT_EQ(receiver.told.size(), 4U);
  EXPECT_EQ(receiver.told[0].name, "layer 7");
  EXPECT_EQ(receiver.told[0].begin_ns, 3000);
  EXPECT_EQ(receiver.told[0].duration_ns, 2000U);
  EXPECT_EQ(receiver.told[1].name, "008-layer-007");
  EXPECT_EQ(receiver.told[1].thread, 2U);
  EXPECT_EQ(receiver.told[1].offset_bytes, 4096U);
  EXPECT_EQ(receiver.told[2].name, "");
  EXPECT_LT(receiver.told[2].begin_ns, 0);
  EXPECT_EQ(receiver.told[3].rows, 3U);
  EXPECT_EQ(receiver.told[3].other_rows, 4U);
  EXPECT_EQ(receiver.told[3].read_bytes, 10U);
  EXPECT_EQ(receiver.told[3].cache_bytes, 20U);
  profile.end();
  EXPECT_EQ(receiver.told.size(), 4U);
  EXPECT_EQ(receiver.last_lost, 0U);
}

TEST(JobProfile, WhatAReceiverHasNoRoomForIsCounted) {
  Receiver receiver;
  receiver.room = 0;
  JobProfile profile(receiver, two_stages(), Clock::now());
  for (int i = 0; i < 1000; ++i) profile.add_sample(Clock::now());
  profile.end();
  EXPECT_TRUE(receiver.told.empty());
  EXPECT_EQ(receiver.last_lost, 1000U);
}

TEST(JobProfile, EndsWithTheLimitAndSaysWhatIsMissing) {
  Receiver receiver;
  JobProfile profile(receiver, two_stages(), Clock::now());
  constexpr uint64_t kMore = 5000;
  for (uint64_t i = 0; i < JobProfile::kMostEvents + kMore; ++i) profile.add_sample(Clock::now());
  profile.add(stream::Recorder::Taken{{}, 11});
  profile.end();
  EXPECT_LE(receiver.told.size(), JobProfile::kMostEvents);
  EXPECT_LE(receiver.most_at_once, 1000U);
  EXPECT_EQ(receiver.told.size() + receiver.last_lost, JobProfile::kMostEvents + kMore + 11);
}

}  // namespace
}  // namespace airllm::schedule

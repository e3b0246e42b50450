#include "engine/stream/recorder.h"

#include <gtest/gtest.h>

namespace airllm::stream {
namespace {

Span read_of(uint32_t shard, uint64_t offset_bytes, bool tells_rows) {
  Span span;
  span.kind = Span::Kind::kRead;
  span.reader = 1;
  span.index = shard;
  span.offset_bytes = offset_bytes;
  span.read_bytes = 4096;
  span.tells_rows = tells_rows;
  return span;
}

TEST(Recorder, KeepsNothingWhileNobodyAsks) {
  Recorder recorder;
  EXPECT_FALSE(recorder.mark());
  recorder.add(recorder.mark(), read_of(1, 0, false));
  recorder.enter_stage(3, {});
  recorder.end_sweep({});
  EXPECT_TRUE(recorder.take().spans.empty());
}

TEST(Recorder, WhatBeganBeforeSomebodyAskedIsNotTold) {
  Recorder recorder;
  const auto before = recorder.mark();
  recorder.begin_sweep(false);
  recorder.add(before, read_of(1, 0, false));
  EXPECT_TRUE(recorder.take().spans.empty());
}

TEST(Recorder, StagesFollowEachOtherWithWhatTheyUsed) {
  Recorder recorder;
  recorder.begin_sweep(false);
  recorder.enter_stage(0, {100, 10, 0});
  recorder.enter_stage(1, {100, 10, 0});
  recorder.enter_stage(1, {150, 10, 0});
  recorder.enter_stage(2, {300, 30, 0});
  recorder.end_sweep({300, 31, 0});
  recorder.end_sweep({300, 31, 0});
  const std::vector<Span> stages = recorder.take().spans;
  ASSERT_EQ(stages.size(), 3U);
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(stages[i].index, i);
  EXPECT_EQ(stages[0].read_bytes, 100U);
  EXPECT_EQ(stages[1].read_bytes, 200U);
  EXPECT_EQ(stages[1].cache_bytes, 20U);
  EXPECT_EQ(stages[2].read_bytes, 0U);
  EXPECT_EQ(stages[2].cache_bytes, 1U);
  EXPECT_LE(stages[0].end, stages[1].begin);
  EXPECT_LE(stages[1].end, stages[2].begin);
}

TEST(Recorder, WhereOtherUsersRowsReadIsHidden) {
  Recorder recorder;
  recorder.begin_sweep(true);
  recorder.add(recorder.mark(), read_of(1, 8192, true));
  recorder.add(recorder.mark(), read_of(2, 8192, false));
  const std::vector<Span> reads = recorder.take().spans;
  ASSERT_EQ(reads.size(), 2U);
  EXPECT_EQ(reads[0].index, Span::kUntold);
  EXPECT_EQ(reads[0].offset_bytes, 0U);
  EXPECT_EQ(reads[0].read_bytes, 4096U);
  EXPECT_EQ(reads[1].index, 2U);
  EXPECT_EQ(reads[1].offset_bytes, 8192U);
}

TEST(Recorder, AReadForRowsOfAnEarlierSweepIsNotTold) {
  Recorder recorder;
  recorder.begin_sweep(true);
  const auto earlier = recorder.mark();
  recorder.begin_sweep(false);
  recorder.add(earlier, read_of(1, 8192, true));
  recorder.add(earlier, read_of(2, 8192, false));  // reading ahead
  const std::vector<Span> reads = recorder.take().spans;
  ASSERT_EQ(reads.size(), 1U);
  EXPECT_EQ(reads[0].index, 2U);
}

TEST(Recorder, MoreThanItHoldsIsCounted) {
  Recorder recorder;
  recorder.begin_sweep(false);
  for (size_t i = 0; i < Recorder::kMostSpans + 5; ++i) {
    recorder.add(recorder.mark(), read_of(1, 0, false));
  }
  const Recorder::Taken taken = recorder.take();
  EXPECT_EQ(taken.spans.size(), Recorder::kMostSpans);
  EXPECT_EQ(taken.lost, 5U);
  EXPECT_EQ(recorder.take().lost, 0U);
  recorder.add(recorder.mark(), read_of(1, 0, false));
  EXPECT_EQ(recorder.take().spans.size(), 1U);
}

TEST(Recorder, TurnedOffItForgets) {
  Recorder recorder;
  recorder.begin_sweep(false);
  const auto mark = recorder.mark();
  recorder.add(mark, read_of(1, 0, false));
  recorder.turn_off();
  recorder.add(mark, read_of(1, 0, false));
  EXPECT_TRUE(recorder.take().spans.empty());
  EXPECT_FALSE(recorder.stage_so_far({}));
}

}  // namespace
}  // namespace airllm::stream

#include "engine/schedule/bench_result.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace airllm::schedule {
namespace {

constexpr uint64_t kGB = 1000000000;

// Reads 2 GB and has 1 GB in memory; computes for half a second.
BenchRound round_of(double seconds) {
  BenchRound round;
  round.seconds = seconds;
  round.waiting_seconds = seconds - 0.5;
  round.reading_seconds = 0.9 * seconds;
  round.disk_bytes = 2 * kGB;
  round.ram_bytes = kGB;
  round.read_bytes = 1.9e9;
  round.disk_ceiling = 2e9;
  round.ram_ceiling = 8e9;
  return round;
}

BenchSetup setup() {
  BenchSetup setup;
  setup.model = "m";
  setup.reader = setup.ceiling_reader = "io_uring";
  setup.is_direct = true;
  setup.streams = true;
  setup.threads = 2;
  setup.ceiling_ram_bytes = kGB;
  return setup;
}

TEST(BenchResult, AMedianIsInTheMiddle) {
  EXPECT_EQ(spread_of({3, 1, 2}).median, 2);
  EXPECT_EQ(spread_of({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(spread_of({7}).median, 7);
  const Spread spread = spread_of({3, -1, 9});
  EXPECT_EQ(spread.least, -1);
  EXPECT_EQ(spread.most, 9);
}

TEST(BenchResult, ARoundIsDividedIntoWaitingAndComputing) {
  const BenchRound round = round_of(2);
  EXPECT_DOUBLE_EQ(round.computing_seconds(), 0.5);
  EXPECT_DOUBLE_EQ(round.disk_rate(), 0.95e9);  // what was read in it, not what was used
  EXPECT_DOUBLE_EQ(round.ram_rate(), 6e9);      // all weights, in half a second
  BenchRound odd = round;
  odd.waiting_seconds = 2.5;  // clocks are read one after the other
  EXPECT_EQ(odd.computing_seconds(), 0);
  EXPECT_EQ(odd.ram_rate(), 0);
}

TEST(BenchResult, TheDiskBoundsWhereReadingTakesAsLongAsComputing) {
  const std::vector<BenchRound> rounds{round_of(1), round_of(1.1), round_of(5)};
  EXPECT_EQ(what_bounds(setup(), rounds), Bound::kDisk);
}

TEST(BenchResult, MemoryOrComputingBoundsElse) {
  std::vector<BenchRound> rounds{round_of(1), round_of(1.1)};
  for (BenchRound& round : rounds) round.disk_ceiling = 5e9;
  EXPECT_EQ(what_bounds(setup(), rounds), Bound::kMemory);  // 6 of 8 GB/s
  BenchSetup small = setup();
  small.ceiling_ram_bytes = kBeyondCachesBytes - 1;
  EXPECT_EQ(what_bounds(small, rounds), Bound::kCompute);
  for (BenchRound& round : rounds) round.ram_ceiling = 20e9;
  EXPECT_EQ(what_bounds(setup(), rounds), Bound::kCompute);
  for (BenchRound& round : rounds) round.ram_ceiling.reset();
  EXPECT_EQ(what_bounds(setup(), rounds), Bound::kCompute);
}

TEST(BenchResult, GivesMediansAndMediansOfRatios) {
  std::vector<BenchRound> rounds{round_of(1), round_of(2), round_of(4)};
  rounds[0].disk_ceiling = 4e9;  // 1.9 of 4, 0.95 of 2, 0.475 of 2
  BenchSetup facts = setup();
  facts.cold_sweep_seconds = 9.5;
  facts.other_jobs = 3;
  const Json result = bench_result(facts, rounds);
  EXPECT_EQ(result["model"], "m");
  EXPECT_EQ(result["sweeps"], 3U);
  EXPECT_EQ(result["cold_sweep_seconds"], 9.5);
  EXPECT_EQ(result["sweep_seconds"], 2.0);
  EXPECT_EQ(result["sweep_seconds_min"], 1.0);
  EXPECT_EQ(result["sweep_seconds_max"], 4.0);
  EXPECT_EQ(result["bound"], "disk");
  EXPECT_EQ(result["other_jobs"], 3U);
  const Json& disk = result["tiers"][0];
  EXPECT_EQ(disk["name"], "disk");
  EXPECT_EQ(disk["bytes_per_sweep"], 2 * kGB);
  EXPECT_EQ(disk["bytes_per_second"], 950000000U);
  EXPECT_EQ(disk["ceiling_bytes_per_second"], 2 * kGB);
  EXPECT_DOUBLE_EQ(disk["ratio"].get<double>(), 0.475);
  EXPECT_DOUBLE_EQ(disk["ratio_min"].get<double>(), 0.2375);
  EXPECT_DOUBLE_EQ(disk["ratio_max"].get<double>(), 0.475);
  const Json& ram = result["tiers"][1];
  EXPECT_EQ(ram["name"], "ram");
  EXPECT_EQ(ram["bytes_per_sweep"], 3 * kGB);
  EXPECT_DOUBLE_EQ(ram["ratio"].get<double>(), 0.75);
  EXPECT_EQ(result["runs"].size(), 3U);
  EXPECT_EQ(result["runs"][0]["disk_ceiling_bytes_per_second"], 4 * kGB);
}

TEST(BenchResult, WhatDoesNotStreamHasNoRatio) {
  BenchRound round = round_of(1);
  round.disk_bytes = 0;
  round.read_bytes = 0;
  round.ram_ceiling.reset();
  BenchSetup facts = setup();
  facts.streams = false;
  const Json result = bench_result(facts, {&round, 1});
  EXPECT_TRUE(result["cold_sweep_seconds"].is_null());
  const Json& disk = result["tiers"][0];
  EXPECT_EQ(disk["bytes_per_sweep"], 0U);
  EXPECT_TRUE(disk["ratio"].is_null());
  EXPECT_EQ(disk["ceiling_bytes_per_second"], 2 * kGB);
  const Json& ram = result["tiers"][1];
  EXPECT_TRUE(ram["ceiling_bytes_per_second"].is_null());
  EXPECT_TRUE(ram["ratio"].is_null());
}

}  // namespace
}  // namespace airllm::schedule

#include "engine/schedule/budget.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "base/units.h"

namespace airllm::schedule {
namespace {

uint64_t default_ram_bytes(const FreeMemory& memory) { return default_budgets(memory).ram_bytes; }
uint64_t default_kv_bytes(const FreeMemory& memory) { return default_budgets(memory).kv_bytes; }

TEST(Budget, IsHalfAndAnEighthOfWhatIsFree) {
  const FreeMemory idle{16 * kGiB, 16 * kGiB};
  EXPECT_EQ(default_ram_bytes(idle), 8 * kGiB);
  EXPECT_EQ(default_kv_bytes(idle), 2 * kGiB);
}

TEST(Budget, LeavesAQuarterOfTheMachineFree) {
  for (const uint64_t available : {5 * kGiB, 7 * kGiB, 10 * kGiB, 12 * kGiB, 16 * kGiB}) {
    const FreeMemory memory{16 * kGiB, available};
    const uint64_t taken = default_ram_bytes(memory) + default_kv_bytes(memory);
    EXPECT_GE(available - taken, 4 * kGiB) << available;
    EXPECT_LE(default_ram_bytes(memory), available / 2);
  }
  // Of 8 GiB, five would be half and an eighth: four may go, less a 64th of 16.
  EXPECT_EQ(default_ram_bytes({16 * kGiB, 8 * kGiB}) / kMiB, (4 * 1024 - 256) * 4 / 5);
  // The share of both stays as it is elsewhere.
  EXPECT_EQ(default_kv_bytes({16 * kGiB, 8 * kGiB}) / kMiB, (4 * 1024 - 256) / 5);
}

TEST(Budget, FollowsTheCgroupsLimit) {
  const FreeMemory limited{64 * kGiB, 60 * kGiB, 2 * kGiB};
  EXPECT_EQ(default_ram_bytes(limited), kGiB);
  EXPECT_EQ(default_kv_bytes(limited), kGiB / 4);
  // Where the machine is fuller than the cgroup allows, the machine counts.
  const FreeMemory full{64 * kGiB, 17 * kGiB, 8 * kGiB};
  EXPECT_LE(default_ram_bytes(full) + default_kv_bytes(full), kGiB);
}

TEST(Budget, IsNeverTooSmallToBegin) {
  for (const FreeMemory& memory : {FreeMemory{16 * kGiB, 4 * kGiB}, FreeMemory{16 * kGiB, kMiB},
                                   FreeMemory{0, 0, 0}, FreeMemory{kGiB, kGiB, 0}}) {
    EXPECT_EQ(default_ram_bytes(memory), 16 * kMiB);
    EXPECT_EQ(default_kv_bytes(memory), 16 * kMiB);
  }
}

// Where half and an eighth are the limit, where the machine's quarter is, and where a cgroup is.
std::vector<FreeMemory> machines() {
  return {{24 * kGiB, 20 * kGiB}, {16 * kGiB, 6 * kGiB}, {64 * kGiB, 60 * kGiB, 4 * kGiB}};
}

TEST(Budget, IsTheSameAtEveryStartWhateverElseGoesOn) {
  std::mt19937 random(1);
  for (const FreeMemory& machine : machines()) {
    std::vector<Budgets> former;
    for (int start = 0; start < 100; ++start) {
      FreeMemory memory = machine;
      const uint64_t noise = random() % (machine.total_bytes / 80);
      memory.available_bytes -= noise;
      if (memory.cgroup_bytes != FreeMemory::kUnlimited) memory.cgroup_bytes -= noise / 100;
      const Budgets now = default_budgets(memory, former);
      EXPECT_GE(memory.available_bytes - now.sum(), machine.total_bytes / 4);
      if (!former.empty()) {
        EXPECT_EQ(now, former.front());
      }
      former = {now};
    }
  }
}

TEST(Budget, FollowsWhatReallyChanged) {
  for (const FreeMemory& machine : machines()) {
    const Budgets before = default_budgets(machine);
    FreeMemory less = machine;
    less.available_bytes -= less.available_bytes / 5;
    less.cgroup_bytes -= less.cgroup_bytes / 5;
    EXPECT_EQ(default_budgets(less, std::array{before}), default_budgets(less));
    EXPECT_EQ(default_budgets(machine, std::array{default_budgets(less)}), before);
  }
}

TEST(Budget, WhatNoStartCanHaveHadCountsForNothing) {
  const FreeMemory machine{16 * kGiB, 16 * kGiB};
  const Budgets fresh = default_budgets(machine);
  const std::array<Budgets, 5> wrong{{{0, 0},
                                      {fresh.ram_bytes, 0},
                                      {~uint64_t{0}, ~uint64_t{0}},
                                      {fresh.ram_bytes, ~uint64_t{0}},
                                      {16 * kGiB, 2 * kGiB}}};
  EXPECT_EQ(default_budgets(machine, wrong), fresh);
  // Of several the nearest.
  const Budgets near{fresh.ram_bytes - kMiB, fresh.kv_bytes};
  const Budgets far{fresh.ram_bytes - 9 * kMiB, fresh.kv_bytes};
  EXPECT_EQ(default_budgets(machine, std::array{far, near, wrong[2]}), near);
}

TEST(Budget, WhatWasReceivedIsFree) {
  const FreeMemory before = free_memory();
  const FreeMemory after = free_memory(64 * kGiB);
  EXPECT_GE(after.available_bytes, 64 * kGiB);
  EXPECT_GE(after.cgroup_bytes, before.cgroup_bytes - before.cgroup_bytes / 4);
  EXPECT_EQ(after.total_bytes, before.total_bytes);
}

TEST(Budget, ReadsThisMachine) {
  const FreeMemory memory = free_memory();
  EXPECT_GT(memory.total_bytes, 64 * kMiB);
  EXPECT_LE(memory.available_bytes, memory.total_bytes);
}

}  // namespace
}  // namespace airllm::schedule

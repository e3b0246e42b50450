#include "engine/schedule/budget.h"

#include <gtest/gtest.h>

#include "base/units.h"

namespace airllm::schedule {
namespace {

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
  // Of 8 GiB, five would be half and an eighth: four may go.
  EXPECT_EQ(default_ram_bytes({16 * kGiB, 8 * kGiB}) / kMiB, 4 * 1024 * 4 / 5);
  // The share of both stays as it is elsewhere.
  EXPECT_EQ(default_kv_bytes({16 * kGiB, 8 * kGiB}) / kMiB, 4 * 1024 / 5);
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

TEST(Budget, ReadsThisMachine) {
  const FreeMemory memory = free_memory();
  EXPECT_GT(memory.total_bytes, 64 * kMiB);
  EXPECT_LE(memory.available_bytes, memory.total_bytes);
}

}  // namespace
}  // namespace airllm::schedule

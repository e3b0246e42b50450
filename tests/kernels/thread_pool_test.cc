#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "tests/kernels/allocation_count.h"

namespace airllm::kernels {
namespace {

// Each element is visited once, and ranges begin on multiples of the grain.
void expect_cover(ThreadPool& pool, size_t count, size_t grain) {
  std::vector<int> visits(count);  // plain: ranges are disjoint, and run() publishes them
  std::atomic<bool> on_grain{true};
  pool.run(count, grain, [&](size_t begin, size_t end) {
    const bool whole = begin % grain == 0 && (end % grain == 0 || end == count) && begin < end;
    if (!whole) on_grain = false;
    for (size_t i = begin; i < end; ++i) ++visits[i];
  });
  EXPECT_TRUE(on_grain) << count << " by " << grain;
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(1, visits[i]) << i << " of " << count;
}

TEST(ThreadPool, CoversEveryRangeOnce) {
  for (const unsigned threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(threads);
    EXPECT_EQ(threads, pool.threads());
    for (const size_t count : {0u, 1u, 2u, 7u, 8u, 9u, 100u, 4099u}) {
      for (const size_t grain : {1u, 3u, 8u, 5000u}) {
        ASSERT_NO_FATAL_FAILURE(expect_cover(pool, count, grain));
      }
    }
  }
}

TEST(ThreadPool, ManyShortRunsFollowEachOther) {
  ThreadPool pool(4);
  std::vector<size_t> sums(64);
  for (size_t run = 0; run < 20000; ++run) {
    pool.run(sums.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) sums[i] += run;
    });
  }
  for (const size_t sum : sums) ASSERT_EQ(size_t{20000} * 19999 / 2, sum);
}

TEST(ThreadPool, SleepingThreadsWakeUp) {
  ThreadPool pool(3);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // long enough to go to sleep
    ASSERT_NO_FATAL_FAILURE(expect_cover(pool, 1000, 1));
  }
}

TEST(ThreadPool, AWaitingCallerWakesUp) {
  ThreadPool pool(2);
  std::atomic<int> done{0};
  pool.run(8, 1, [&](size_t, size_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ++done;
  });
  EXPECT_EQ(8, done.load());
}

TEST(ThreadPool, SeveralThreadsWork) {
  ThreadPool pool(4);
  std::atomic<int> inside{0};
  std::atomic<bool> met{false};
  // Two of the chunks wait for each other, so one thread alone would never end.
  pool.run(4, 1, [&](size_t, size_t) {
    ++inside;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!met && std::chrono::steady_clock::now() < deadline) {
      if (inside >= 2) met = true;
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(met.load());
}

TEST(ThreadPool, RunTakesNoMemory) {
  ThreadPool pool(3);
  std::vector<int> numbers(1000);
  const auto body = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) ++numbers[i];
  };
  pool.run(numbers.size(), 1, body);
  const size_t before = testing::allocation_count();
  for (int i = 0; i < 100; ++i) pool.run(numbers.size(), 1, body);
  EXPECT_EQ(before, testing::allocation_count());
}

TEST(ThreadPool, UnusedPoolEnds) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(5);
}

}  // namespace
}  // namespace airllm::kernels

#include "kernels/memory_sum.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace airllm::kernels {
namespace {

TEST(MemorySum, IsOfEveryWholeLine) {
  for (const unsigned threads : {1u, 3u}) {
    ThreadPool pool(threads);
    for (const size_t lines : {0u, 1u, 7u, 513u, 100003u}) {
      std::vector<uint64_t> words(lines * 8 + 5);
      std::iota(words.begin(), words.end(), 1);
      const uint64_t whole = lines * 8;
      EXPECT_EQ(sum_memory(std::as_bytes(std::span(words)), pool), whole * (whole + 1) / 2);
    }
  }
}

}  // namespace
}  // namespace airllm::kernels

#include "engine/kv/kv_pool.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "tests/engine/memory_flags.h"

namespace airllm::kv {
namespace {

constexpr KvShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 5, .value_dim = 5};

TEST(KvPool, ABudgetOfNoBlockIsRefused) {
  const auto pool = KvPool::create(kShape, kShape.block_bytes() - 1);
  ASSERT_FALSE(pool);
  EXPECT_EQ(pool.error().code, ErrorCode::kConfig);
}

TEST(KvPool, SequencesGetBlocksUntilTheBudgetIsSpent) {
  const auto pool = KvPool::create(kShape, 4 * kShape.block_bytes() + 1);
  ASSERT_TRUE(pool);
  EXPECT_EQ((*pool)->total_blocks(), 4U);
  KvSequence first(**pool);
  KvSequence second(**pool);
  EXPECT_TRUE(first.reserve(33));
  EXPECT_EQ((*pool)->used_bytes(), 2 * kShape.block_bytes());
  EXPECT_TRUE(second.reserve(64));
  EXPECT_TRUE(first.reserve(64));
  EXPECT_FALSE(first.reserve(65));
  second.clear();
  EXPECT_EQ((*pool)->free_blocks(), 2U);
  EXPECT_TRUE(first.reserve(65));
}

TEST(KvPool, KeepsWhatIsWritten) {
  const auto pool = KvPool::create(kShape, 8 * kShape.block_bytes());
  ASSERT_TRUE(pool);
  kernels::ThreadPool threads(1);
  KvSequence sequence(**pool);
  constexpr size_t kPositions = 71;
  ASSERT_TRUE(sequence.reserve(kPositions));
  const auto value = [](size_t layer, size_t position, size_t i, bool is_v) {
    return static_cast<float>(((layer * 100 + position) * 20 + i) * 2 + (is_v ? 1 : 0));
  };
  constexpr size_t kWidth = kShape.kv_heads * kShape.head_dim;
  for (size_t layer = 0; layer < kShape.layers; ++layer) {
    for (size_t position = 0; position < kPositions; ++position) {
      float k[kWidth];
      float v[kWidth];
      for (size_t i = 0; i < kWidth; ++i) {
        k[i] = value(layer, position, i, false);
        v[i] = value(layer, position, i, true);
      }
      sequence.write(layer, position, k, v, kernels::scalar_backend(), threads);
    }
  }
  (*pool)->trim();  // takes only what is free
  for (size_t layer = 0; layer < kShape.layers; ++layer) {
    for (size_t position = 0; position < kPositions; ++position) {
      const float* page = sequence.pages(layer)[position / 32];
      for (size_t i = 0; i < kWidth; ++i) {
        const size_t at =
            ((i / kShape.head_dim) * 32 + position % 32) * kShape.head_dim + i % kShape.head_dim;
        ASSERT_EQ(page[at], value(layer, position, i, false));
        ASSERT_EQ(page[kShape.page_floats() / 2 + at], value(layer, position, i, true));
      }
    }
  }
}

TEST(KvPool, IsLeftOutOfCoreFiles) {
  const auto pool = KvPool::create(kShape, 8 * kShape.block_bytes());
  ASSERT_TRUE(pool);
  EXPECT_TRUE(testing::is_left_out_of_core_files((*pool)->block(0)));
}

TEST(KvPool, AnIdlePoolGivesItsMemoryBack) {
  const auto pool = KvPool::create(kShape, 64 * kShape.block_bytes());
  ASSERT_TRUE(pool);
  KvSequence sequence(**pool);
  ASSERT_TRUE(sequence.reserve(64 * 32));
  float* const first = (*pool)->block(0);
  std::memset(first, 1, 64 * kShape.block_bytes());
  const auto is_resident = [&] {
    unsigned char page = 0;
    EXPECT_EQ(::mincore(first, 1, &page), 0);
    return (page & 1) != 0;
  };
  EXPECT_TRUE(is_resident());
  sequence.clear();
  (*pool)->trim();
  EXPECT_FALSE(is_resident());
}

TEST(KvPool, TrimmedBlocksCanBeUsedAgain) {
  const auto pool = KvPool::create(kShape, 8 * kShape.block_bytes());
  ASSERT_TRUE(pool);
  KvSequence sequence(**pool);
  ASSERT_TRUE(sequence.reserve(256));
  sequence.clear();
  (*pool)->trim();
  EXPECT_EQ((*pool)->free_blocks(), 8U);
  EXPECT_TRUE(sequence.reserve(256));
}

}  // namespace
}  // namespace airllm::kv

#include "fetch/piece_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/units.h"

namespace airllm::fetch {
namespace {

constexpr uint64_t kAll = UINT64_MAX;

PiecePlan fresh(uint64_t size) { return {size, 0, {}, {}}; }

// Brings `count` bytes of the piece; block by block, as a sink does.
void bring(PiecePlan& plan, Piece& piece, uint64_t count) {
  while (count > 0) {
    const uint64_t offset = piece.position;
    const uint64_t step = std::min(kBlockBytes - offset % kBlockBytes, count);
    plan.wrote(piece, offset, step);
    count -= step;
  }
}

TEST(PiecePlan, AnEmptyFileIsComplete) {
  PiecePlan plan = fresh(0);
  EXPECT_TRUE(plan.is_complete());
  EXPECT_EQ(plan.prefix(), 0U);
  EXPECT_EQ(plan.missing(), 0U);
  EXPECT_FALSE(plan.take(kAll, kMiB).has_value());
}

TEST(PiecePlan, PiecesFollowEachOtherAndDoNotOverlap) {
  PiecePlan plan = fresh(10 * kBlockBytes + 17);
  const auto first = plan.take(kAll, 4 * kBlockBytes);
  const auto second = plan.take(kAll, 4 * kBlockBytes);
  const auto third = plan.take(kAll, 4 * kBlockBytes);
  EXPECT_EQ(first->position, 0U);
  EXPECT_EQ(first->end, 4 * kBlockBytes);
  EXPECT_EQ(second->position, 4 * kBlockBytes);
  EXPECT_EQ(third->position, 8 * kBlockBytes);
  EXPECT_EQ(third->end, 10 * kBlockBytes + 17);
  EXPECT_NE(first->lane, second->lane);
  EXPECT_FALSE(plan.take(kAll, kMiB).has_value());
}

TEST(PiecePlan, NothingBeyondTheLimitIsTaken) {
  PiecePlan plan = fresh(10 * kBlockBytes);
  EXPECT_FALSE(plan.take(kBlockBytes - 1, kMiB).has_value());
  EXPECT_EQ(plan.take(3 * kBlockBytes + 5, kMiB)->end, 3 * kBlockBytes);
  EXPECT_FALSE(plan.take(4 * kBlockBytes - 1, kMiB).has_value());
  EXPECT_EQ(plan.take(4 * kBlockBytes, kMiB)->end, 4 * kBlockBytes);
}

TEST(PiecePlan, ThePrefixIsWhatHasNoGap) {
  PiecePlan plan = fresh(4 * kBlockBytes);
  Piece first = *plan.take(kAll, kBlockBytes);
  Piece second = *plan.take(kAll, kBlockBytes);
  bring(plan, second, kBlockBytes);
  EXPECT_EQ(plan.prefix(), 0U);
  bring(plan, first, 100);
  EXPECT_EQ(plan.prefix(), 100U);
  EXPECT_EQ(plan.missing(), 3 * kBlockBytes - 100);
  bring(plan, first, kBlockBytes - 100);
  EXPECT_EQ(plan.prefix(), 2 * kBlockBytes);
}

TEST(PiecePlan, WhatAPieceDidNotBringIsTakenAgainFromWhereItEnded) {
  PiecePlan plan = fresh(4 * kBlockBytes);
  Piece piece = *plan.take(kAll, kMiB);
  bring(plan, piece, kBlockBytes + 1000);
  plan.give_back(piece);
  const Piece again = *plan.take(kAll, kMiB);
  EXPECT_EQ(again.position, kBlockBytes + 1000);
  EXPECT_EQ(again.end, 4 * kBlockBytes);
  EXPECT_EQ(again.lane, piece.lane);
}

TEST(PiecePlan, GoesOnFromAJournal) {
  std::array<Lane, kLanes> lanes{};
  lanes[5] = {2, 77};
  lanes[9] = {3, 5};  // of a block that is there
  lanes[11] = {99, 5};
  PiecePlan plan(5 * kBlockBytes, 0, {0b1001}, lanes);
  EXPECT_EQ(plan.prefix(), kBlockBytes);
  EXPECT_EQ(plan.missing(), 3 * kBlockBytes - 77);
  // A piece ends before a block that is begun.
  const Piece first = *plan.take(kAll, kMiB);
  EXPECT_EQ(first.position, kBlockBytes);
  EXPECT_EQ(first.end, 2 * kBlockBytes);
  const Piece second = *plan.take(kAll, kMiB);
  EXPECT_EQ(second.position, 2 * kBlockBytes + 77);
  EXPECT_EQ(second.end, 3 * kBlockBytes);
  EXPECT_EQ(second.lane, 5U);
  const Piece third = *plan.take(kAll, kMiB);
  EXPECT_EQ(third.position, 4 * kBlockBytes);
  EXPECT_FALSE(plan.take(kAll, kMiB).has_value());
}

TEST(PiecePlan, TheHashedPrefixIsThereWhateverTheJournalSays) {
  PiecePlan plan(5 * kBlockBytes, 2 * kBlockBytes + 30, {}, {});
  EXPECT_EQ(plan.prefix(), 2 * kBlockBytes + 30);
  EXPECT_EQ(plan.take(kAll, kMiB)->position, 2 * kBlockBytes + 30);
}

TEST(PiecePlan, BitsBehindTheEndAreNone) {
  PiecePlan plan(3 * kBlockBytes, 0, {0xf8}, {});
  EXPECT_EQ(plan.missing(), 3 * kBlockBytes);
  EXPECT_FALSE(plan.is_complete());
}

TEST(PiecePlan, ASlowPieceIsShared) {
  PiecePlan plan = fresh(8 * kBlockBytes);
  Piece piece = *plan.take(kAll, kMiB);
  bring(plan, piece, kBlockBytes + 10);
  const auto upper = plan.split(piece);
  ASSERT_TRUE(upper.has_value());
  EXPECT_EQ(upper->position, piece.end);
  EXPECT_EQ(upper->end, 8 * kBlockBytes);
  EXPECT_GT(piece.end, piece.position);
  EXPECT_FALSE(plan.take(kAll, kMiB).has_value());
}

TEST(PiecePlan, AShortPieceIsNotShared) {
  PiecePlan plan = fresh(2 * kBlockBytes);
  Piece piece = *plan.take(kAll, kMiB);
  EXPECT_FALSE(plan.split(piece).has_value());
}

TEST(PiecePlan, AllOfTheFileFillsOnlyWhatIsMissing) {
  std::array<Lane, kLanes> lanes{};
  lanes[7] = {2, 100};
  PiecePlan plan(4 * kBlockBytes, 0, {0b0010}, lanes);
  auto all = plan.take_all();
  ASSERT_TRUE(all.has_value());
  EXPECT_FALSE(plan.take(kAll, kMiB).has_value());
  EXPECT_EQ(plan.there_at(0), 0U);
  bring(plan, *all, kBlockBytes);
  EXPECT_EQ(plan.there_at(kBlockBytes), kBlockBytes);
  EXPECT_EQ(plan.there_at(2 * kBlockBytes), 100U);
  EXPECT_EQ(plan.there_at(2 * kBlockBytes + 99), 1U);
  all->position = 2 * kBlockBytes + 100;
  bring(plan, *all, 2 * kBlockBytes - 100);
  EXPECT_TRUE(plan.is_complete());
}

// Pieces of any size that come, break off and are shared in any order, with a journal in between:
// all bytes are brought, and none twice.
TEST(PiecePlan, BringsEachByteOnce) {
  std::mt19937 random(7);
  const auto below = [&](uint64_t bound) { return random() % bound; };
  for (int round = 0; round < 200; ++round) {
    const uint64_t size = below(40 * kBlockBytes) + 1;
    auto plan = std::make_unique<PiecePlan>(fresh(size));
    std::vector<Piece> out;
    uint64_t brought = 0;
    while (!plan->is_complete()) {
      const uint64_t what = below(10);
      if (what < 4) {
        if (auto piece = plan->take(below(size + kBlockBytes), below(kMiB))) out.push_back(*piece);
        if (auto piece = out.empty() ? plan->take(kAll, kMiB) : std::nullopt) out.push_back(*piece);
      } else if (what < 8 && !out.empty()) {
        Piece& piece = out[below(out.size())];
        const uint64_t count = below(piece.end - piece.position + 1);
        bring(*plan, piece, count);
        brought += count;
      } else if (what == 8 && !out.empty()) {
        const size_t index = below(out.size());
        if (auto upper = plan->split(out[index])) {
          out.push_back(*upper);
        } else {
          plan->give_back(out[index]);
          out.erase(out.begin() + static_cast<ptrdiff_t>(index));
        }
      } else if (what == 9 && below(10) == 0) {
        std::array<Lane, kLanes> lanes{};
        for (size_t i = 0; i < kLanes; ++i) lanes[i] = plan->lane(i);
        const uint64_t missing = plan->missing();
        plan = std::make_unique<PiecePlan>(size, 0, plan->blocks(), lanes);
        EXPECT_EQ(plan->missing(), missing);
        out.clear();
      }
      ASSERT_EQ(plan->missing(), size - brought);
      std::erase_if(out, [&](const Piece& piece) {
        if (piece.position < piece.end) return false;
        plan->give_back(piece);
        return true;
      });
    }
    EXPECT_EQ(brought, size);
    EXPECT_EQ(plan->prefix(), size);
  }
}

}  // namespace
}  // namespace airllm::fetch

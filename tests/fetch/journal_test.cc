#include "fetch/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/fetch/scratch_file.h"

namespace airllm::fetch {
namespace {

const BootId kBoot{std::byte{1}};
const BootId kOtherBoot{std::byte{2}};

JournalSubject subject() {
  return {20 * kBlockBytes + 5, HashKind::kSha256, std::string(64, 'a'), 4711};
}

Journal open(const ScratchFile& file, const BootId& boot = kBoot,
             const JournalSubject& about = subject()) {
  auto journal = Journal::open(file.descriptor(), about, boot);
  AIRLLM_CHECK(journal.has_value());
  return std::move(*journal);
}

Checkpoint checkpoint(uint64_t prefix, uint32_t word) {
  Checkpoint out{prefix, {}};
  out.hash.words.fill(word);
  out.hash.partial.fill(static_cast<uint8_t>(word));
  return out;
}

bool is_empty(const JournalContent& content) {
  for (const uint8_t byte : content.blocks) {
    if (byte != 0) return false;
  }
  for (const Lane& lane : content.lanes) {
    if (lane.bytes != 0) return false;
  }
  return !content.checkpoint;
}

// One with something in it of each kind.
ScratchFile filled() {
  ScratchFile file;
  Journal journal = open(file);
  const std::vector<uint8_t> blocks{0b10110, 0, 1};
  EXPECT_TRUE(journal.save_blocks(1, 2, blocks));
  EXPECT_TRUE(journal.save_blocks(16, 17, blocks));
  EXPECT_TRUE(journal.save_lane(3, {5, 1000}, 123));
  EXPECT_TRUE(journal.save_lane(63, {19, 65535}, 1));
  EXPECT_TRUE(journal.save_durable(checkpoint(100, 7)));
  EXPECT_TRUE(journal.save_live(checkpoint(200, 8)));
  EXPECT_TRUE(journal.save_live(checkpoint(300, 9)));
  return file;
}

TEST(Journal, ANewOneHoldsNothing) {
  const ScratchFile file;
  Journal journal = open(file);
  const JournalContent content = journal.take_content();
  EXPECT_TRUE(is_empty(content));
  EXPECT_EQ(content.fresh_because, "");
  EXPECT_EQ(content.received, 0U);
}

TEST(Journal, TellsWhatWasSaved) {
  const ScratchFile file = filled();
  Journal journal = open(file);
  const JournalContent content = journal.take_content();
  ASSERT_TRUE(content.checkpoint.has_value());
  EXPECT_EQ(content.checkpoint->prefix, 300U);
  EXPECT_EQ(content.checkpoint->hash, checkpoint(300, 9).hash);
  EXPECT_EQ(content.blocks, (std::vector<uint8_t>{0b10110, 0, 1}));
  EXPECT_EQ(content.lanes[3].block, 5U);
  EXPECT_EQ(content.lanes[3].bytes, 1000U);
  EXPECT_EQ(content.lanes[63].block, 19U);
  EXPECT_EQ(content.received, 124U);
}

TEST(Journal, CountsWhatCameOverAllRuns) {
  const ScratchFile file = filled();
  EXPECT_TRUE(open(file).save_lane(3, {5, 2000}, 1000));
  EXPECT_EQ(open(file).take_content().received, 1124U);
}

TEST(Journal, OfAnotherBootOnlyWhatIsDurableCounts) {
  const ScratchFile file = filled();
  {
    Journal journal = open(file, kOtherBoot);
    const JournalContent content = journal.take_content();
    ASSERT_TRUE(content.checkpoint.has_value());
    EXPECT_EQ(content.checkpoint->prefix, 100U);
    EXPECT_EQ(content.blocks, (std::vector<uint8_t>{0, 0, 0}));
    EXPECT_EQ(content.lanes[3].bytes, 0U);
    EXPECT_EQ(content.received, 124U);
    EXPECT_NE(content.fresh_because, "");
  }
  // And it is of this boot now.
  const JournalContent again = open(file, kOtherBoot).take_content();
  EXPECT_EQ(again.checkpoint->prefix, 100U);
  EXPECT_EQ(again.fresh_because, "");
}

TEST(Journal, OfAnotherFileNothingCounts) {
  JournalSubject others[] = {subject(), subject(), subject(), subject(), subject()};
  others[0].size_bytes += 1;
  others[1].size_bytes += 100 * kBlockBytes;
  others[2].digest = std::string(64, 'b');
  others[3].data_inode += 1;
  others[4].kind = HashKind::kGitBlob;
  for (const JournalSubject& other : others) {
    const ScratchFile file = filled();
    const JournalContent content = open(file, kBoot, other).take_content();
    EXPECT_TRUE(is_empty(content));
    EXPECT_NE(content.fresh_because, "");
    EXPECT_EQ(content.received, 0U);
  }
}

TEST(Journal, ResetForgetsAllButWhatCame) {
  const ScratchFile file = filled();
  EXPECT_TRUE(open(file).reset());
  const JournalContent content = open(file).take_content();
  EXPECT_TRUE(is_empty(content));
  EXPECT_EQ(content.received, 124U);
}

TEST(Journal, ATornCheckpointLeavesTheOneBefore) {
  ScratchFile file = filled();
  std::string bytes = file.content();
  // The last of the live ones lies in the first half, since its number is even.
  bytes[8192 + 50] ^= 1;
  file.set_content(bytes);
  EXPECT_EQ(open(file).take_content().checkpoint->prefix, 200U);
}

// Whatever somebody wrote into it: nothing that does not fit the file comes out.
TEST(Journal, AnyChangedByteIsBorne) {
  const std::string good = filled().content();
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    const size_t changes = random() % 4 + 1;
    for (size_t i = 0; i < changes; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 10 == 0) bytes.resize(random() % (2 * bytes.size()));
    ScratchFile file;
    file.set_content(bytes);
    const JournalContent content = open(file).take_content();
    if (content.checkpoint) {
      EXPECT_LE(content.checkpoint->prefix, subject().size_bytes);
    }
    EXPECT_EQ(content.blocks.size(), 3U);
    for (const Lane& lane : content.lanes) {
      EXPECT_LT(lane.block, 21U);
      EXPECT_LT(lane.bytes, kBlockBytes);
    }
  }
}

TEST(Journal, AFileThatCannotBeWrittenIsAnError) {
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto journal = Journal::open(UniqueFd(::dup(null.get())), subject(), kBoot);
  ASSERT_FALSE(journal.has_value());
  EXPECT_NE(journal.error().message.find("journal"), std::string::npos);
}

TEST(Journal, TheBootHasAnId) {
  EXPECT_EQ(current_boot_id(), current_boot_id());
  EXPECT_NE(current_boot_id(), BootId{});
}

}  // namespace
}  // namespace airllm::fetch

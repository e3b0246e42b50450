// Which bytes of a file are there, and which of the missing ones are fetched next, by whom.
//
// A piece is a run of bytes that one request is to bring, in order, through a lane of the journal.
// Belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "fetch/journal.h"

namespace airllm::fetch {

struct Piece {
  size_t lane = 0;
  uint64_t position = 0;  // of the next byte
  uint64_t end = 0;
};

class PiecePlan {
 public:
  // What a journal told; the blocks before `prefix` are there whatever it says.
  PiecePlan(uint64_t size_bytes, uint64_t prefix, std::vector<uint8_t> blocks,
            const std::array<Lane, kLanes>& lanes);

  // The lowest missing bytes that nobody fetches, at most about `bytes` of them and none at or
  // beyond `limit`; whole blocks, but where the beginning of one is there. Nothing when there are
  // none, or all lanes are in use.
  std::optional<Piece> take(uint64_t limit, uint64_t bytes);
  // The piece's lane, for a request that was answered with all of the file: only when no piece is
  // out. Its bytes are told with wrote() wherever they are missing.
  std::optional<Piece> take_all();
  // Ends a piece; what it did not bring is missing again.
  void give_back(const Piece& piece);
  // The upper half of what `piece` still has to bring, for another request; nothing when it is
  // short.
  std::optional<Piece> split(Piece& piece);

  // `count` bytes at `offset`, which are missing and lie in one block, have been written by the
  // piece's request. True when the block is whole now.
  bool wrote(Piece& piece, uint64_t offset, uint64_t count);
  // How many bytes from `offset` on, in its block, are there already.
  uint64_t there_at(uint64_t offset) const;

  // The bytes from the beginning that are there without a gap.
  uint64_t prefix() const;
  // All bytes that are not.
  uint64_t missing() const;
  bool is_complete() const { return first_missing_ == block_count_; }
  const std::vector<uint8_t>& blocks() const { return blocks_; }
  // What the journal is to hold for the lane.
  const Lane& lane(size_t index) const { return lanes_[index].state; }

 private:
  struct LaneUse {
    Lane state;
    bool in_use = false;
  };

  static bool has(const std::vector<uint8_t>& bits, uint64_t block) {
    return (bits[block / 8] >> (block % 8) & 1U) != 0;
  }
  static void set(std::vector<uint8_t>& bits, uint64_t block, bool value);
  bool is_free(uint64_t block) const { return !has(blocks_, block) && !has(taken_, block); }
  uint64_t block_end(uint64_t block) const;
  // The lane that has the beginning of `block`, if any; else nullptr.
  const LaneUse* lane_of(uint64_t block) const;
  std::optional<size_t> free_lane() const;
  void advance_first();

  uint64_t size_;
  uint64_t block_count_;
  std::vector<uint8_t> blocks_;
  std::vector<uint8_t> taken_;
  std::array<LaneUse, kLanes> lanes_{};
  uint64_t first_missing_ = 0;  // block
  uint64_t blocks_there_ = 0;
};

}  // namespace airllm::fetch

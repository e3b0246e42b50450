#include "fetch/piece_plan.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace airllm::fetch {

PiecePlan::PiecePlan(uint64_t size_bytes, uint64_t prefix, std::vector<uint8_t> blocks,
                     const std::array<Lane, kLanes>& lanes)
    : size_(size_bytes),
      block_count_(blocks_of(size_bytes)),
      blocks_(std::move(blocks)),
      taken_((block_count_ + 7) / 8, 0) {
  blocks_.resize(taken_.size(), 0);
  // Bits behind the last block belong to none.
  if (block_count_ % 8 != 0) blocks_.back() &= static_cast<uint8_t>((1U << block_count_ % 8) - 1);
  for (uint64_t block = 0; block < block_count_ && block_end(block) <= prefix; ++block) {
    set(blocks_, block, true);
  }
  for (const uint8_t byte : blocks_) blocks_there_ += static_cast<uint64_t>(std::popcount(byte));
  // A prefix may end inside a block: at the end of a run that hashed what was there of it.
  const uint64_t last = prefix / kBlockBytes;
  if (prefix % kBlockBytes != 0 && last < block_count_ && !has(blocks_, last)) {
    lanes_[0].state = {last, static_cast<uint32_t>(prefix % kBlockBytes)};
  }
  for (size_t i = 0; i < kLanes; ++i) {
    const Lane& lane = lanes[i];
    const bool fits = lane.bytes > 0 && lane.block < block_count_ && !has(blocks_, lane.block) &&
                      lane.block * kBlockBytes + lane.bytes < block_end(lane.block);
    if (!fits) continue;
    if (const LaneUse* known = lane_of(lane.block)) {
      // Two of one block: the longer one is true, since both were.
      auto& use = lanes_[static_cast<size_t>(known - lanes_.data())];
      use.state.bytes = std::max(use.state.bytes, lane.bytes);
    } else if (lanes_[i].state.bytes == 0) {
      lanes_[i].state = lane;
    }
  }
  advance_first();
}

void PiecePlan::set(std::vector<uint8_t>& bits, uint64_t block, bool value) {
  const auto mask = static_cast<uint8_t>(1U << block % 8);
  uint8_t& byte = bits[block / 8];
  byte = static_cast<uint8_t>(value ? byte | mask : byte & ~mask);
}

uint64_t PiecePlan::block_end(uint64_t block) const {
  return std::min((block + 1) * kBlockBytes, size_);
}

const PiecePlan::LaneUse* PiecePlan::lane_of(uint64_t block) const {
  for (const LaneUse& use : lanes_) {
    if (use.state.bytes > 0 && use.state.block == block) return &use;
  }
  return nullptr;
}

// One that holds the beginning of no block, if there is one: the beginning would be forgotten.
std::optional<size_t> PiecePlan::free_lane() const {
  std::optional<size_t> found;
  for (size_t i = 0; i < kLanes; ++i) {
    if (lanes_[i].in_use) continue;
    if (lanes_[i].state.bytes == 0) return i;
    found = i;
  }
  return found;
}

std::optional<Piece> PiecePlan::take(uint64_t limit, uint64_t bytes) {
  uint64_t block = first_missing_;
  while (block < block_count_ && !is_free(block)) ++block;
  if (block == block_count_ || block_end(block) > limit) return std::nullopt;
  const LaneUse* const begun = lane_of(block);
  const auto lane = begun != nullptr ? static_cast<size_t>(begun - lanes_.data()) : free_lane();
  if (!lane) return std::nullopt;
  lanes_[*lane].in_use = true;
  if (begun == nullptr) lanes_[*lane].state = {};
  Piece piece{*lane, block * kBlockBytes + lanes_[*lane].state.bytes, 0};
  const uint64_t first = block;
  do {
    set(taken_, block, true);
    piece.end = block_end(block);
    ++block;
  } while (block < block_count_ && is_free(block) && block_end(block) <= limit &&
           (block - first + 1) * kBlockBytes <= bytes && lane_of(block) == nullptr);
  return piece;
}

std::optional<Piece> PiecePlan::take_all() {
  for (const LaneUse& use : lanes_) {
    if (use.in_use) return std::nullopt;
  }
  // The lane of the block that is missing first, whose beginning stays known.
  const LaneUse* const begun = lane_of(first_missing_);
  const size_t lane = begun != nullptr ? static_cast<size_t>(begun - lanes_.data()) : *free_lane();
  lanes_[lane].in_use = true;
  for (uint64_t block = first_missing_; block < block_count_; ++block) set(taken_, block, true);
  return Piece{lane, 0, size_};
}

void PiecePlan::give_back(const Piece& piece) {
  lanes_[piece.lane].in_use = false;
  const uint64_t end = blocks_of(piece.end);
  for (uint64_t block = piece.position / kBlockBytes; block < end; ++block) {
    set(taken_, block, false);
  }
}

std::optional<Piece> PiecePlan::split(Piece& piece) {
  const uint64_t begin = piece.position / kBlockBytes + 1;
  const uint64_t end = blocks_of(piece.end);
  const auto lane = free_lane();
  if (end < begin + 2 || !lane) return std::nullopt;
  const uint64_t middle = begin + (end - begin) / 2;
  lanes_[*lane] = {{}, true};
  const Piece upper{*lane, middle * kBlockBytes, piece.end};
  piece.end = upper.position;
  return upper;
}

bool PiecePlan::wrote(Piece& piece, uint64_t offset, uint64_t count) {
  const uint64_t block = offset / kBlockBytes;
  // No gap: what is told of a block is its beginning.
  AIRLLM_CHECK(count > 0 && offset + count <= block_end(block) && !has(blocks_, block));
  AIRLLM_CHECK(there_at(block * kBlockBytes) == offset - block * kBlockBytes);
  LaneUse* use = &lanes_[piece.lane];
  if (const LaneUse* begun = lane_of(block); begun != nullptr && begun != use) {
    // A block that another request had begun: its lane goes on with it.
    use->in_use = false;
    piece.lane = static_cast<size_t>(begun - lanes_.data());
    use = &lanes_[piece.lane];
    use->in_use = true;
  }
  piece.position = offset + count;
  if (offset + count < block_end(block)) {
    use->state = {block, static_cast<uint32_t>(offset + count - block * kBlockBytes)};
    return false;
  }
  use->state = {};
  set(blocks_, block, true);
  set(taken_, block, false);
  ++blocks_there_;
  advance_first();
  return true;
}

void PiecePlan::advance_first() {
  while (first_missing_ < block_count_ && has(blocks_, first_missing_)) ++first_missing_;
}

uint64_t PiecePlan::there_at(uint64_t offset) const {
  const uint64_t block = offset / kBlockBytes;
  if (has(blocks_, block)) return block_end(block) - offset;
  const LaneUse* const begun = lane_of(block);
  const uint64_t there = begun == nullptr ? 0 : begun->state.bytes;
  return there - std::min(there, offset - block * kBlockBytes);
}

uint64_t PiecePlan::prefix() const {
  if (is_complete()) return size_;
  const LaneUse* const begun = lane_of(first_missing_);
  return first_missing_ * kBlockBytes + (begun == nullptr ? 0 : begun->state.bytes);
}

uint64_t PiecePlan::missing() const {
  if (is_complete()) return 0;
  uint64_t there = blocks_there_ * kBlockBytes;
  const uint64_t last = block_count_ - 1;
  if (has(blocks_, last)) there -= (last + 1) * kBlockBytes - size_;
  for (const LaneUse& use : lanes_) there += use.state.bytes;
  return size_ - there;
}

}  // namespace airllm::fetch

// Tiles: what is read, verified and multiplied at once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/model/stages.h"
#include "engine/store/shard.h"

namespace airllm::stream {

// A run of whole blocks (store/shard.h) of one weight.
struct Tile {
  uint32_t stage = 0;                             // that uses it
  uint32_t step = 0;                              // of that stage
  std::optional<uint32_t> expert = std::nullopt;  // whose weight it is, among experts
  uint32_t shard = 0;                             // that holds it; another stage's for a tied head
  uint32_t tensor = 0;                            // index into that shard's tensors
  uint64_t row_begin = 0;
  uint64_t rows = 0;
  uint64_t first_block = 0;
  uint64_t blocks = 0;

  // Where its bytes lie, and the whole pages around them that are read.
  uint64_t data_offset = 0;  // in the file
  uint64_t data_bytes = 0;
  uint64_t read_offset() const;
  uint64_t read_bytes() const;
};

// What is read of a file.
struct FileExtent {
  const store::DiskFile* file = nullptr;
  uint64_t offset_bytes = 0;
  uint64_t bytes = 0;
};

// Of a tile: past the page cache whole pages; through it nothing but the tile itself, since the
// file may end with it.
FileExtent extent_of(const Tile& tile, std::span<const store::Shard> shards);

// The tiles of a model in the order of use, cyclic: what the embedding's rows go through, all
// layers, then the head. The embedding itself is looked up by row and is no part of it, unless the
// head is tied to it.
struct TileList {
  std::vector<Tile> tiles;
  size_t head_begin = 0;                // index of the head's first tile
  size_t tied_begin = 0, tied_end = 0;  // of the embedding as a tied head's weight

  uint64_t total_bytes() const;  // of read_bytes
  uint64_t largest_read_bytes() const;
};

// Cuts tiles of about `target_bytes`, at least one block each.
TileList cut_tiles(const model::Architecture& architecture, std::span<const store::Shard> shards,
                   uint64_t target_bytes);

// The longest block of all weights, in whole pages: the smallest tile size that there can be.
uint64_t largest_block_bytes(std::span<const store::Shard> shards);

}  // namespace airllm::stream

#include "engine/stream/tile.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "base/check.h"
#include "base/checked.h"
#include "base/units.h"

namespace airllm::stream {
namespace {

struct Place {
  uint32_t shard;
  uint32_t tensor;
};

// Where each tensor lies, by name: a mixture of experts has tens of thousands. Borrows the names.
using Places = std::unordered_map<std::string_view, Place>;

Places places_of(std::span<const store::Shard> shards) {
  Places places;
  for (uint32_t s = 0; s < shards.size(); ++s) {
    for (uint32_t t = 0; t < shards[s].tensors.size(); ++t) {
      places.emplace(shards[s].tensors[t].name, Place{s, t});
    }
  }
  return places;
}

class Cutter {
 public:
  Cutter(std::span<const store::Shard> shards, uint64_t target_bytes)
      : shards_(shards), places_(places_of(shards)), target_bytes_(target_bytes) {}

  void cut(uint32_t stage, uint32_t step, std::optional<uint32_t> expert, const std::string& name) {
    const auto found = places_.find(name);
    AIRLLM_CHECK(found != places_.end());  // the store has checked that every tensor is there
    const Place place = found->second;
    const store::ShardTensor& tensor = shards_[place.shard].tensors[place.tensor];
    const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
    const uint64_t blocks_per_tile = std::max<uint64_t>(1, target_bytes_ / block_bytes);
    const uint64_t blocks = tensor.block_checksums.size();
    for (uint64_t first = 0; first < blocks; first += blocks_per_tile) {
      Tile tile;
      tile.stage = stage;
      tile.step = step;
      tile.expert = expert;
      tile.shard = place.shard;
      tile.tensor = place.tensor;
      tile.first_block = first;
      tile.blocks = std::min(blocks_per_tile, blocks - first);
      tile.row_begin = first * tensor.rows_per_block;
      tile.rows = std::min(tile.blocks * tensor.rows_per_block, tensor.rows - tile.row_begin);
      tile.data_offset = tensor.offset_bytes + tile.row_begin * tensor.row_bytes;
      tile.data_bytes = tile.rows * tensor.row_bytes;
      list_.tiles.push_back(tile);
    }
  }

  TileList& list() { return list_; }

 private:
  std::span<const store::Shard> shards_;
  const Places places_;
  uint64_t target_bytes_;
  TileList list_;
};

}  // namespace

uint64_t Tile::read_offset() const { return round_down(data_offset, kPageBytes); }

uint64_t Tile::read_bytes() const {
  return round_up(data_offset + data_bytes, kPageBytes) - read_offset();
}

FileExtent extent_of(const Tile& tile, std::span<const store::Shard> shards) {
  const store::Shard& shard = shards[tile.shard];
  const store::DiskFile& file = shard.file_of(shard.tensors[tile.tensor]);
  if (file.is_direct()) return {&file, tile.read_offset(), tile.read_bytes()};
  return {&file, tile.data_offset, tile.data_bytes};
}

uint64_t TileList::total_bytes() const {
  uint64_t sum = 0;
  for (const Tile& tile : tiles) sum += tile.read_bytes();
  return sum;
}

uint64_t TileList::largest_read_bytes() const {
  uint64_t largest = 0;
  for (const Tile& tile : tiles) largest = std::max(largest, tile.read_bytes());
  return largest;
}

TileList cut_tiles(const model::Architecture& architecture, std::span<const store::Shard> shards,
                   uint64_t target_bytes) {
  const std::vector<model::StageSpec> stages = model::stages(architecture);
  Cutter cutter(shards, target_bytes);
  for (uint32_t stage = 0; stage < stages.size(); ++stage) {
    const model::StageSpec& spec = stages[stage];
    if (spec.kind == model::StageSpec::Kind::kHead) {
      cutter.list().head_begin = cutter.list().tiles.size();
    }
    for (uint32_t step = 0; step < spec.steps.size(); ++step) {
      const model::Step& what = spec.steps[step];
      if (!what.is_driven()) continue;
      if (what.tensor != model::Step::kBorrowed) {
        cutter.cut(stage, step, what.expert, spec.tensors[what.tensor].name);
        continue;
      }
      cutter.list().tied_begin = cutter.list().tiles.size();
      cutter.cut(stage, step, what.expert, *spec.borrowed);
      cutter.list().tied_end = cutter.list().tiles.size();
    }
  }
  return std::move(cutter.list());
}

uint64_t largest_block_bytes(std::span<const store::Shard> shards) {
  uint64_t largest = 0;
  for (const store::Shard& shard : shards) {
    for (const store::ShardTensor& tensor : shard.tensors) {
      const uint64_t rows = std::min(tensor.rows_per_block, tensor.rows);
      const uint64_t bytes = rows * tensor.row_bytes;
      // A block that does not begin with a page may end inside one more.
      const bool aligned =
          tensor.offset_bytes % kPageBytes == 0 &&
          (tensor.rows_per_block * tensor.row_bytes % kPageBytes == 0 || rows == tensor.rows);
      largest = std::max(largest, round_up(bytes, kPageBytes) + (aligned ? 0 : kPageBytes));
    }
  }
  return largest;
}

}  // namespace airllm::stream

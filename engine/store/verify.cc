#include "engine/store/verify.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "base/checked.h"
#include "base/units.h"
#include "engine/store/hash.h"

namespace airllm::store {
namespace {

constexpr uint64_t kReadBytes = 4 * kMiB;

struct Region {
  enum class Kind { kDescription, kBlock, kPad };
  Kind kind;
  uint64_t end;  // in the file; it begins where the last one ended
  const ShardTensor* tensor = nullptr;
  uint64_t block = 0;
};

// The whole file, in order: header, blocks and pads, outliers' places, checksums.
std::vector<Region> regions_of(const Shard& shard) {
  std::vector<Region> out;
  uint64_t blocks = 0, outliers = 0;
  uint64_t at = shard.tensors.front().offset_bytes;
  out.push_back({Region::Kind::kDescription, at});
  for (const ShardTensor& tensor : shard.tensors) {
    if (tensor.offset_bytes > at) out.push_back({Region::Kind::kPad, tensor.offset_bytes});
    const uint64_t end = tensor.offset_bytes + tensor.bytes();
    const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
    for (uint64_t i = 0; i < tensor.block_checksums.size(); ++i, ++blocks) {
      const uint64_t block_end = std::min(tensor.offset_bytes + (i + 1) * block_bytes, end);
      out.push_back({Region::Kind::kBlock, block_end, &tensor, i});
    }
    at = end;
    outliers += tensor.outliers.size();
  }
  if (outliers > 0) {
    const uint64_t begin = round_up(at, kPageBytes);
    if (begin > at) out.push_back({Region::Kind::kPad, begin});
    at = begin + outliers * kOutlierBytes;
    out.push_back({Region::Kind::kDescription, at});
  }
  const uint64_t table = shard.file_bytes - blocks * sizeof(uint64_t);
  if (table > at) out.push_back({Region::Kind::kPad, table});
  out.push_back({Region::Kind::kDescription, shard.file_bytes});
  return out;
}

// Takes the file's bytes in order.
class Checker {
 public:
  Checker(const Shard& shard, uint64_t hash)
      : shard_(shard), hash_(hash), regions_(regions_of(shard)) {}

  Status take(std::span<const std::byte> data) {
    while (!data.empty()) {
      const Region& region = regions_[current_];
      const auto piece = data.first(std::min<uint64_t>(data.size(), region.end - at_));
      AIRLLM_TRY_VOID(take_piece(region, piece));
      at_ += piece.size();
      data = data.subspan(piece.size());
      if (at_ == region.end) {
        AIRLLM_TRY_VOID(finish(region));
        ++current_;
      }
    }
    return {};
  }

 private:
  Status take_piece(const Region& region, std::span<const std::byte> piece) {
    if (region.kind == Region::Kind::kBlock) {
      block_.update(piece);
    } else if (region.kind == Region::Kind::kDescription) {
      description_.update(piece);
    } else {
      const auto bad =
          std::find_if(piece.begin(), piece.end(), [](std::byte b) { return b != std::byte{0}; });
      if (bad != piece.end()) {
        return damaged("the padding is damaged at offset " +
                       std::to_string(at_ + static_cast<uint64_t>(bad - piece.begin())));
      }
    }
    return {};
  }

  Status finish(const Region& region) {
    if (region.kind == Region::Kind::kBlock) {
      const uint64_t found = block_.digest();
      block_.reset();
      return check_block_checksum(shard_, *region.tensor, region.block, found);
    }
    if (region.end == shard_.file_bytes && description_.digest() != hash_) {
      return damaged("its header, checksums or outliers' places are damaged");
    }
    return {};
  }

  Unexpected damaged(const std::string& why) const {
    return Unexpected(ErrorCode::kData, shard_.path + ": " + why, kRepairRemedy);
  }

  const Shard& shard_;
  uint64_t hash_;
  std::vector<Region> regions_;
  size_t current_ = 0;
  uint64_t at_ = 0;
  Hasher block_;
  Hasher description_;
};

struct AlignedFree {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::byte, AlignedFree>;

Result<Buffer> make_buffer(uint64_t bytes, const Shard& shard) {
  Buffer buffer(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes)));
  if (!buffer) return Unexpected(ErrorCode::kOs, "no memory for reading " + shard.path);
  return buffer;
}

// The longest run of whole blocks that is about kReadBytes long.
uint64_t run_bytes(const ShardTensor& tensor) {
  const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
  return std::max<uint64_t>(kReadBytes / block_bytes, 1) * block_bytes;
}

Status verify_tensor(const Shard& shard, const ShardTensor& tensor, std::byte* memory,
                     const std::function<Status(uint64_t bytes)>& advance) {
  const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
  for (uint64_t at = 0; at < tensor.bytes(); at += run_bytes(tensor)) {
    const uint64_t bytes = std::min(run_bytes(tensor), tensor.bytes() - at);
    AIRLLM_TRY(
        const std::byte* const data,
        with_remedy(read_with_pages(shard.file_of(tensor), tensor.offset_bytes + at, bytes, memory),
                    kChangedRemedy));
    for (uint64_t begin = 0; begin < bytes; begin += block_bytes) {
      AIRLLM_TRY_VOID(check_block(shard, tensor, (at + begin) / block_bytes,
                                  {data + begin, std::min(block_bytes, bytes - begin)}));
    }
    AIRLLM_TRY_VOID(advance(bytes));
  }
  return {};
}

}  // namespace

Status verify_in_place(const Shard& shard, const std::function<Status(uint64_t bytes)>& advance) {
  uint64_t longest = 0;
  for (const ShardTensor& tensor : shard.tensors) {
    longest = std::max(longest, std::min(run_bytes(tensor), tensor.bytes()));
  }
  AIRLLM_TRY(const Buffer buffer, make_buffer(round_up(longest, kPageBytes) + kPageBytes, shard));
  for (const ShardTensor& tensor : shard.tensors) {
    AIRLLM_TRY_VOID(verify_tensor(shard, tensor, buffer.get(), advance));
  }
  return {};
}

Status verify_shard(const Shard& shard, uint64_t header_and_checksums_hash,
                    const std::function<Status(uint64_t bytes)>& advance) {
  AIRLLM_TRY(const Buffer buffer, make_buffer(kReadBytes, shard));
  const DiskFile& file = *shard.files.front();
  Checker checker(shard, header_and_checksums_hash);
  for (uint64_t at = 0; at < shard.file_bytes; at += kReadBytes) {
    const uint64_t bytes = std::min(kReadBytes, shard.file_bytes - at);
    const uint64_t wanted = file.is_direct() ? round_up(bytes, kPageBytes) : bytes;
    AIRLLM_TRY_VOID(file.read_at(at, {buffer.get(), wanted}));
    AIRLLM_TRY_VOID(checker.take({buffer.get(), bytes}));
    AIRLLM_TRY_VOID(advance(bytes));
  }
  return {};
}

}  // namespace airllm::store

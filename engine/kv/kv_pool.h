// Keys and values of all sequences, in pages out of one budget.
//
// A *block* holds 32 positions of one sequence in every layer: for each layer k [kv_heads][32]
// [head_dim], then v [kv_heads][32][value_dim] floats. Address space for the whole budget is
// reserved at the start; memory is committed when a block is first written and given back when the
// pool is idle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/backend.h"

namespace airllm::kv {

struct KvShape {
  size_t layers = 0, kv_heads = 0, head_dim = 0;
  size_t value_dim = 0;  // 0: values lie in the keys

  // Floats of one layer's page: k and v of 32 positions.
  size_t page_floats() const {
    return kv_heads * kernels::kKvPagePositions * (head_dim + value_dim);
  }
  size_t block_bytes() const { return layers * page_floats() * sizeof(float); }
  uint64_t bytes_per_position() const { return block_bytes() / kernels::kKvPagePositions; }
};

// Blocks of one shape. Used by the engine thread only.
class KvPool {
 public:
  // Reserves `budget_bytes` of address space, rounded down to whole blocks.
  static Result<std::unique_ptr<KvPool>> create(const KvShape& shape, uint64_t budget_bytes);
  // In memory of a device's own, which `owner` holds.
  static Result<std::unique_ptr<KvPool>> create_in(const KvShape& shape,
                                                   std::span<std::byte> memory,
                                                   std::shared_ptr<void> owner);
  ~KvPool();
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  const KvShape& shape() const { return shape_; }
  size_t total_blocks() const { return total_; }
  size_t free_blocks() const { return total_ - used_; }
  uint64_t used_bytes() const { return used_ * shape_.block_bytes(); }

  std::optional<uint32_t> acquire();
  void release(uint32_t block);
  float* block(uint32_t index) const;
  // Gives the memory of free blocks back to the system.
  void trim();

 private:
  KvPool(const KvShape& shape, std::byte* base, size_t total, std::shared_ptr<void> owner)
      : shape_(shape), base_(base), total_(total), owner_(std::move(owner)) {}

  KvShape shape_;
  std::byte* base_;
  size_t total_;
  std::shared_ptr<void> owner_;  // of the memory; null: the pool's own mapping
  size_t used_ = 0;
  size_t touched_ = 0;          // blocks [0, touched_) may have memory
  std::vector<uint32_t> free_;  // of the touched ones; last in, first out
};

// One sequence's keys and values. Borrows the pool.
class KvSequence {
 public:
  explicit KvSequence(KvPool& pool);
  ~KvSequence() { clear(); }
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  // Makes room for positions 0 … positions - 1; false when the pool has no block left (what was
  // acquired stays).
  [[nodiscard]] bool reserve(size_t positions);
  void clear();
  size_t blocks() const { return blocks_.size(); }

  // Pages of one layer, as kernels::AttentionRow wants them. Valid until reserve() or clear().
  const float* const* pages(size_t layer) const { return tables_[layer].data(); }
  // Stores one position's k, [kv_heads, head_dim], and v, [kv_heads, value_dim].
  void write(size_t layer, size_t position, const float* k, const float* v,
             const kernels::Backend& backend, kernels::ThreadPool& pool);

 private:
  KvPool& pool_;
  std::vector<uint32_t> blocks_;
  std::vector<std::vector<const float*>> tables_;  // [layers][blocks]
};

}  // namespace airllm::kv

#include "engine/kv/kv_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/checked.h"
#include "base/units.h"

namespace airllm::kv {
namespace {

Result<size_t> blocks_within(const KvShape& shape, uint64_t budget_bytes,
                             const std::string& remedy) {
  const size_t total = static_cast<size_t>(budget_bytes / shape.block_bytes());
  if (total > 0) return total;
  return Unexpected(ErrorCode::kConfig,
                    "the KV budget of " + format_size(budget_bytes) +
                        " holds no block of 32 positions, which takes " +
                        format_size(shape.block_bytes()) + " with this model",
                    remedy);
}

}  // namespace

Result<std::unique_ptr<KvPool>> KvPool::create_in(const KvShape& shape, std::span<std::byte> memory,
                                                  std::shared_ptr<void> owner) {
  AIRLLM_TRY(const size_t total,
             blocks_within(shape, memory.size(), "give more --vram, or more --kv"));
  return std::unique_ptr<KvPool>(new KvPool(shape, memory.data(), total, std::move(owner)));
}

Result<std::unique_ptr<KvPool>> KvPool::create(const KvShape& shape, uint64_t budget_bytes) {
  AIRLLM_TRY(
      const size_t total,
      blocks_within(shape, budget_bytes, "give --kv at least " + format_size(shape.block_bytes())));
  void* base = ::mmap(nullptr, total * shape.block_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return Unexpected(errno_error("cannot reserve " + format_size(total * shape.block_bytes()) +
                                      " of address space for keys and values",
                                  errno, "give a smaller --kv"));
  }
  // Keys and values follow from prompts: no core file has them.
  ::madvise(base, total * shape.block_bytes(), MADV_DONTDUMP);
  return std::unique_ptr<KvPool>(new KvPool(shape, static_cast<std::byte*>(base), total, nullptr));
}

KvPool::~KvPool() {
  if (owner_ == nullptr) ::munmap(base_, total_ * shape_.block_bytes());
}

std::optional<uint32_t> KvPool::acquire() {
  if (!free_.empty()) {
    const uint32_t index = free_.back();
    free_.pop_back();
    ++used_;
    return index;
  }
  if (touched_ == total_) return std::nullopt;
  ++used_;
  return static_cast<uint32_t>(touched_++);
}

void KvPool::release(uint32_t block) {
  AIRLLM_CHECK(used_ > 0 && block < touched_);
  --used_;
  free_.push_back(block);
}

float* KvPool::block(uint32_t index) const {
  return reinterpret_cast<float*>(base_ + index * shape_.block_bytes());
}

void KvPool::trim() {
  if (owner_ != nullptr) return;  // all of it is taken, used or not
  if (used_ == 0) {
    if (touched_ > 0) ::madvise(base_, touched_ * shape_.block_bytes(), MADV_DONTNEED);
    touched_ = 0;
    free_.clear();
    return;
  }
  // Blocks need not be whole pages: only what lies wholly inside a free block is given back.
  for (const uint32_t index : free_) {
    const auto begin = reinterpret_cast<uintptr_t>(block(index));
    const uintptr_t first = round_up(begin, kPageBytes);
    const uintptr_t last = round_down(begin + shape_.block_bytes(), kPageBytes);
    if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }
}

KvSequence::KvSequence(KvPool& pool) : pool_(pool), tables_(pool.shape().layers) {}

bool KvSequence::reserve(size_t positions) {
  const size_t wanted = (positions + kernels::kKvPagePositions - 1) / kernels::kKvPagePositions;
  while (blocks_.size() < wanted) {
    const std::optional<uint32_t> index = pool_.acquire();
    if (!index) return false;
    blocks_.push_back(*index);
    const float* base = pool_.block(*index);
    for (size_t layer = 0; layer < tables_.size(); ++layer) {
      tables_[layer].push_back(base + layer * pool_.shape().page_floats());
    }
  }
  return true;
}

void KvSequence::clear() {
  for (const uint32_t index : blocks_) pool_.release(index);
  blocks_.clear();
  for (auto& table : tables_) table.clear();
}

void KvSequence::write(size_t layer, size_t position, const float* k, const float* v,
                       const kernels::Backend& backend, kernels::ThreadPool& pool) {
  const KvShape& shape = pool_.shape();
  const size_t page_positions = kernels::kKvPagePositions;
  float* page = pool_.block(blocks_[position / page_positions]) + layer * shape.page_floats();
  float* v_page = page + shape.kv_heads * page_positions * shape.head_dim;
  const size_t slot = position % page_positions;
  const auto store = [&](const float* from, float* to, size_t width) {
    if (width == 0) return;
    backend.copy(
        {from, width, nullptr, to + slot * width, page_positions * width, shape.kv_heads, width},
        pool);
  };
  store(k, page, shape.head_dim);
  store(v, v_page, shape.value_dim);
}

}  // namespace airllm::kv

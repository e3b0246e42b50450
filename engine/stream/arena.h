// The memory of a device that has its own, and the copies between it and the host's.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "engine/model/memory_access.h"

namespace airllm::stream {

class Arena;

// A part of an arena, given back when it goes. Its addresses mean something to the device's
// operations and copies only.
class ArenaBlock {
 public:
  ArenaBlock() = default;
  ArenaBlock(Arena& arena, std::span<std::byte> memory) : arena_(&arena), memory_(memory) {}
  ArenaBlock(ArenaBlock&& other) noexcept;
  ArenaBlock& operator=(ArenaBlock&& other) noexcept;
  ArenaBlock(const ArenaBlock&) = delete;
  ArenaBlock& operator=(const ArenaBlock&) = delete;
  ~ArenaBlock();

  std::span<std::byte> memory() const { return memory_; }

 private:
  Arena* arena_ = nullptr;
  std::span<std::byte> memory_;
};

// Thread-safe, but for what the pass reads and writes.
class Arena : public model::MemoryAccess {
 public:
  virtual uint64_t capacity_bytes() const = 0;
  virtual uint64_t used_bytes() const = 0;
  virtual uint64_t peak_bytes() const = 0;  // most that was ever used
  uint64_t free_bytes() const { return capacity_bytes() - used_bytes(); }

  // In whole pages, aligned to one. kTemporary when less is free.
  virtual Result<ArenaBlock> allocate(uint64_t bytes) = 0;

  // Called by the copying thread, which then began to copy at `began`.
  using Copied = std::function<void(std::chrono::steady_clock::time_point began)>;
  // The copy stream: copies `from`, of the host, to `to`, in the order of the calls, once what the
  // device had to compute before the call is done. `from` stays until `copied` is called.
  virtual void copy_in(std::byte* to, std::span<const std::byte> from, Copied copied) = 0;

 private:
  friend class ArenaBlock;
  virtual void release(std::span<std::byte> memory) = 0;
};

}  // namespace airllm::stream

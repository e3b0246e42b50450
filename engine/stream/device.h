// A device: memory for weights and rows, and the operations on it.
//
// The pass and the pipeline talk to a Device. The CPU is the device whose memory is the shard cache
// itself: what the reader fills is what the kernels read, nothing is copied. A device with its own
// memory has an arena, and a stream of copies between the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "kernels/backend.h"

namespace airllm::stream {

// Memory that the reader may fill and the kernels may use: one run of addresses, page-aligned,
// committed as it is touched, left out of core files. Its first part is this process's own and has
// huge pages where the system gives them, since a disk takes a request of few long pieces up to
// three times as fast as one of many pages. The rest is a memfd that other processes may hold, too.
class Slab {
 public:
  static Result<Slab> create(uint64_t bytes) { return create(bytes, UniqueFd(), 0); }
  // `working_bytes` (whole pages) that go with this process, then the first `lasting_bytes` of
  // `lasting`, with what they hold.
  static Result<Slab> create(uint64_t working_bytes, UniqueFd lasting, uint64_t lasting_bytes);
  Slab() = default;
  Slab(Slab&& other) noexcept;
  Slab& operator=(Slab&& other) noexcept;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab();

  std::span<std::byte> memory() const { return memory_; }
  // Gives the whole pages within `part` of memory() back to the system, whoever else holds them;
  // they read as zeros.
  void discard(std::span<std::byte> part);

  int lasting_fd() const { return lasting_.get(); }

  // Of the memory that has been touched, how much stays out of swap: all, or nothing where the
  // limit on locked memory is lower.
  uint64_t locked_bytes() const { return locked_bytes_; }
  // Whether the system gives huge pages to the first part.
  bool has_huge_pages() const { return has_huge_pages_; }

 private:
  UniqueFd lasting_;
  uint64_t working_bytes_ = 0;
  std::span<std::byte> memory_;
  uint64_t locked_bytes_ = 0;
  bool has_huge_pages_ = false;
};

class Arena;

// Used by one thread, the engine's, but for its arena.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // "cpu"
  // Host memory, as Slab::create().
  virtual Result<Slab> allocate(uint64_t working_bytes, UniqueFd lasting,
                                uint64_t lasting_bytes) = 0;
  virtual const kernels::Backend& backend() const = 0;
  virtual kernels::ThreadPool& pool() = 0;
  // The memory that it computes in (engine/stream/arena.h); null: in what allocate() gives.
  virtual Arena* arena() { return nullptr; }
};

// `threads` as in kernels::ThreadPool.
std::unique_ptr<Device> make_cpu_device(const kernels::Backend& backend, unsigned threads);

}  // namespace airllm::stream

// How bytes come from disk: reads that are begun, and ends that are waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "engine/store/disk.h"

namespace airllm::stream {

// Fills `memory` from `offset_bytes` of `file` on. Both outlive the read; where the file is direct,
// all is in whole pages.
struct Read {
  const store::DiskFile* file = nullptr;
  uint64_t offset_bytes = 0;
  std::span<std::byte> memory;
};

struct EndedRead {
  size_t token = 0;
  Status status;
};

// One thread's reads. Destroyed only when none is under way.
class ReadQueue {
 public:
  virtual ~ReadQueue() = default;
  // How many more may begin.
  virtual size_t room() const = 0;
  // `token` comes back with the read's end.
  virtual void begin(const Read& read, size_t token) = 0;
  // Waits for the end of one, in whatever order they end; nothing when wake() was called. Some are
  // under way.
  virtual std::optional<EndedRead> wait() = 0;
  // Ends a wait(), the next one when there is none now. From any thread.
  virtual void wake() = 0;
};

// Reads one after the other with pread, in wait().
std::unique_ptr<ReadQueue> make_blocking_queue();

// How tiles are read. kAuto: by io_uring where the system allows it, else as kThreads.
enum class ReaderKind : uint8_t { kAuto, kUring, kThreads };
inline constexpr const char* kUringName = "io_uring";
inline constexpr const char* kThreadsName = "threads";
// What kAuto makes of it here.
const char* usable_reader(ReaderKind kind);

// Up to `depth` reads at once by io_uring, those into `registered` without looking up its pages
// each time where the limit on locked memory allows. A ring that may do nothing but read. Where the
// system refuses io_uring that is the error.
Result<std::unique_ptr<ReadQueue>> make_uring_queue(unsigned depth,
                                                    std::span<std::byte> registered);

}  // namespace airllm::stream

// The ceiling of a sweep's reading: the same bytes of the same files, as fast as the disk gives
// them to this process, without checking or using them.
//
// By io_uring where the system allows it, else by a few threads; past the page cache where the
// files are opened so. Its buffers are a constant of its own, kMemoryBytes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "engine/stream/device.h"
#include "engine/stream/host_tier.h"
#include "engine/stream/plan.h"
#include "engine/stream/read_queue.h"

namespace airllm::stream {

// What a sweep with `plan`, and `host` beside a device with memory of its own, reads from disk, or
// all weights where that is nothing; in the order of the files, what lies together as one.
std::vector<FileExtent> extents_to_read(const Plan& plan, std::span<const store::Shard> shards,
                                        const HostPlan* host = nullptr);

// How much is read in one measurement: `bytes` and for at least `least`, but no longer than `most`.
struct CeilingLimits {
  uint64_t bytes = 0;
  std::chrono::milliseconds least{0};
  std::chrono::milliseconds most{0};
  std::chrono::milliseconds deadline{0};  // for a read to come back
};

struct ReadRate {
  uint64_t bytes = 0;
  double seconds = 0;
};

// Used by one thread; reads on threads of its own, so that a read that hangs hangs nobody.
class CeilingReader {
 public:
  static constexpr uint64_t kMemoryBytes = 8 * kMiB;

  // `extents` are not empty, and their files stay as long as `keeps` does.
  static Result<std::unique_ptr<CeilingReader>> create(std::vector<FileExtent> extents,
                                                       ReaderKind kind,
                                                       std::shared_ptr<const void> keeps);
  // Joins the threads, so it waits for reads under way: see is_back().
  ~CeilingReader() = default;
  CeilingReader(const CeilingReader&) = delete;
  CeilingReader& operator=(const CeilingReader&) = delete;

  // Goes on where the last measurement ended, and round and round. kCancelled when `stop` asks;
  // kIo when a read does not come back: then nothing more can be measured.
  Result<ReadRate> measure(const CeilingLimits& limits, const std::stop_token& stop);
  // False while a read is under way that measure() did not wait for.
  bool is_back() const;
  // "io_uring" or "threads".
  const char* reader_name() const { return reader_name_; }

 private:
  using Clock = std::chrono::steady_clock;

  struct Reader {
    std::unique_ptr<ReadQueue> queue;
    std::vector<std::span<std::byte>> slots;  // where reads go
    std::vector<uint64_t> reading;            // by slot: bytes of the read under way; 0: none
    size_t under_way = 0;
  };

  explicit CeilingReader(std::vector<FileExtent> extents) : extents_(std::move(extents)) {}
  void add_reader(std::unique_ptr<ReadQueue> queue, std::span<std::byte> memory);
  void begin(const CeilingLimits& limits);
  void read_loop(Reader& reader);
  void begin_reads(Reader& reader, std::unique_lock<std::mutex>& lock);
  void end_read(Reader& reader, const EndedRead& ended);  // lock held
  FileExtent next_piece(uint64_t most_bytes);             // lock held
  // Waits until the reads are over, or must be left alone.
  Status wait_for_end(std::unique_lock<std::mutex>& lock, const std::stop_token& stop);

  const std::vector<FileExtent> extents_;
  std::shared_ptr<const void> keeps_;
  Slab slab_;
  const char* reader_name_ = kThreadsName;
  std::vector<Reader> readers_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t extent_ = 0;    // where reading goes on
  uint64_t offset_ = 0;  // in that extent
  CeilingLimits limits_;
  Clock::time_point began_, last_end_;
  uint64_t bytes_ = 0;
  bool stopping_ = false;
  size_t running_ = 0;  // threads
  std::optional<Error> error_;

  std::vector<std::jthread> threads_;  // last: joined before all else goes
};

}  // namespace airllm::stream

// What a weight pipeline does and when, for the profiles that jobs ask for: stages, waits, reads.
//
// Off unless a job of the sweep asked. Then what is recorded waits here, a bounded number of spans,
// until the engine thread takes it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace airllm::stream {

// Weights used, by where they came from.
struct IoCounters {
  uint64_t read_bytes = 0;    // read from disk for this use
  uint64_t cache_bytes = 0;   // lay in memory already
  uint64_t copied_bytes = 0;  // of both, copied to the device's own memory for this use
  double wait_seconds = 0;    // the engine thread waited for reading
};

// Something that took a while.
struct Span {
  using Clock = std::chrono::steady_clock;
  enum class Kind : uint8_t {
    kStage,  // the engine thread was in a stage
    kWait,   // the engine thread waited for reading
    kRead,   // a reader read, and checked what it read
    kCopy,   // the device's copy stream copied a tile into the device's memory
  };
  static constexpr uint32_t kUntold = ~uint32_t{0};

  Kind kind = Kind::kWait;
  uint32_t reader = 0;      // of kRead: its number, from 1; of kCopy one more; 0: the engine thread
  uint32_t index = 0;       // of kStage: the stage; of kRead, kCopy: the shard, or kUntold
  bool tells_rows = false;  // where it read depends on what rows hold: a token's block, an expert
  Clock::time_point begin, end;
  uint64_t offset_bytes = 0;  // of kRead, in the shard's file
  uint64_t read_bytes = 0;    // of kRead, kCopy: its length; of kStage: as IoCounters
  uint64_t cache_bytes = 0;   // of kStage: as IoCounters
};

// Thread-safe, but for what says otherwise.
class Recorder {
 public:
  using Clock = Span::Clock;
  // Spans that wait to be taken; more are counted as lost.
  static constexpr size_t kMostSpans = 8192;

  // When something began, and in which sweep; nothing while the recorder is off.
  struct Mark {
    Clock::time_point time;
    uint64_t sweep;
  };
  std::optional<Mark> mark() const {
    const uint64_t sweep = sweep_.load(std::memory_order_relaxed);
    if (sweep == 0) return std::nullopt;
    return Mark{Clock::now(), sweep};
  }
  // Keeps `span`, which began at `mark` and ends now. Where a span that tells_rows has read is only
  // kept when all rows are of the user who will see it, and when it began in the same sweep.
  void add(const std::optional<Mark>& mark, Span span);

  // The spans so far, in the order of their ends, and how many are missing among them.
  struct Taken {
    std::vector<Span> spans;
    uint64_t lost = 0;
  };
  Taken take();
  bool is_on() const { return sweep_.load(std::memory_order_relaxed) != 0; }

  // ---- called by the engine thread ----

  // A sweep begins, in its first stage. `hides_rows`: it carries rows of several users.
  void begin_sweep(bool hides_rows);
  // From here on `stage`; `io` is what the sweep has used so far.
  void enter_stage(uint32_t stage, const IoCounters& io);
  // The stage that the sweep is in, until now.
  std::optional<Span> stage_so_far(const IoCounters& io) const;
  void end_sweep(const IoCounters& io);
  // Nobody asks: drops what is left.
  void turn_off();

 private:
  std::atomic<uint64_t> sweep_{0};  // 0: off

  // The engine thread's own.
  uint64_t sweeps_ = 0;
  std::optional<Mark> stage_mark_;
  uint32_t stage_ = 0;
  IoCounters io_at_stage_;

  mutable std::mutex mutex_;
  bool hides_rows_ = false;
  Taken taken_;
};

}  // namespace airllm::stream

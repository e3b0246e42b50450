// The weight pipeline of one model: reads tiles ahead of their use, verifies them, and hands them
// to the forward pass in order.
//
// A weight byte's life: a reader thread reads its tile from the shard into the slab (O_DIRECT where
// the file system allows, several at once by io_uring where the system allows), checks the tile's
// blocks against their checksums, and marks it ready; the engine thread takes it, multiplies, and
// releases it. A pinned tile is read once and stays, or lies there from before a restart, which its
// checksums tell before it would be read; a streamed one takes a slot of the ring, which is free
// again once released. A tile that lies in the workspace streams while a large batch takes its
// place. Reading runs ahead as far as the ring goes, from the last layer on to the first of the
// next sweep. Which experts of a layer are used is known only when the pass has come to it, so
// there reading waits for that. Then the ExpertCache says which of them get slots, and all their
// reads are queued at once.
//
// A device with memory of its own has the ring, the pinned tiles and the experts' slots there.
// Between the disk and them lies the host tier: a tile is read into it and checked there, then
// copied by the device's copy stream while others are read and multiplied. What the host tier keeps
// is copied only.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "engine/model/weight_source.h"
#include "engine/store/shard.h"
#include "engine/stream/arena.h"
#include "engine/stream/expert_cache.h"
#include "engine/stream/host_tier.h"
#include "engine/stream/plan.h"
#include "engine/stream/read_queue.h"
#include "engine/stream/recorder.h"

namespace airllm::stream {

struct StreamOptions {
  ReaderKind reader = ReaderKind::kAuto;
  unsigned readers = 2;                // threads that read and verify
  unsigned reads_at_once = 8;          // of each of them, with io_uring
  double read_deadline_seconds = 120;  // a read that takes longer fails the sweep
  // The slab's lasting part comes from an earlier process: what of it passes its checksums is not
  // read.
  bool is_adopted = false;
  std::function<void()> before_read = {};  // for debugging: called by a reader before each read
};

// What a stream to a device with memory of its own takes besides.
struct HostSide {
  Arena* arena = nullptr;
  const HostPlan* plan = nullptr;
  std::span<std::byte> memory;  // at least plan->memory_bytes
};

// What sweeps have used of a model's experts since the stream began.
struct ExpertCounters {
  uint64_t hits = 0;        // an expert of a layer lay in memory when the sweep came to it
  uint64_t misses = 0;      // or did not, or not all of it
  uint64_t read_bytes = 0;  // as in IoCounters
  uint64_t saved_bytes = 0;
};

// Owned and used by the engine thread; its reader threads are its own.
class WeightStream : public model::WeightSource {
 public:
  // Borrows all. `slab` is at least plan.slab_bytes, of the device's memory where that is its own.
  // `interrupted` is asked every 20 ms while waiting; an error from it ends the sweep.
  WeightStream(const Plan& plan, std::span<const store::Shard> shards, std::span<std::byte> slab,
               const kernels::Backend& backend, const StreamOptions& options,
               std::function<Status()> interrupted, const HostSide* host = nullptr);
  // Joins the readers, so it waits for reads under way: see stop_reading().
  ~WeightStream() override;
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  Status take_workspace(uint64_t bytes) override;
  void begin_sweep(bool with_head) override;
  Result<model::TileView> next_tile(bool& done) override;
  void release_tile() override;
  void choose_experts(const std::vector<bool>& used) override;
  Status lookup(size_t tensor, uint64_t row, float* out) override;

  // How tiles are read, "io_uring" or "threads", and why not by io_uring when that was tried.
  const char* reader_name() const { return uses_uring_ ? kUringName : kThreadsName; }
  const std::optional<Error>& uring_problem() const { return uring_problem_; }

  void set_read_deadline(double seconds) { options_.read_deadline_seconds = seconds; }
  // Whether a read did not come back within the deadline. It may still write to its memory, so the
  // stream is of no further use: set it aside until readers_are_back().
  bool has_late_read() const { return has_late_read_; }
  // No more reads begin. Then waits `patience` for those under way; false when some still are.
  bool stop_reading(std::chrono::milliseconds patience);
  // Whether all readers and copies have ended after stop_reading(): only then can the stream be
  // destroyed without waiting.
  bool readers_are_back() const;
  // The host memory that reads under way fill, in order of address.
  std::vector<std::span<std::byte>> memory_being_read() const;

  // What was used since take_counters().
  const IoCounters& counters() const { return counters_; }
  IoCounters take_counters();
  // Records stages, waits and reads while it is on.
  Recorder& recorder() { return recorder_; }
  // Bytes of tiles that are in memory now, and stay: pinned ones, experts in their slots, and what
  // the host tier keeps.
  uint64_t resident_bytes() const;
  uint64_t resident_expert_bytes() const;  // of experts alone
  // Where they are, as long as the stream is there: in order of address, neighbours as one.
  std::vector<std::span<const std::byte>> resident_memory() const;
  // Whether reads are under way or wait for a reader.
  bool is_reading() const;
  const ExpertCounters& expert_counters() const { return expert_counters_; }

 private:
  enum class State : uint8_t { kAbsent, kQueued, kReading, kCopying, kReady, kFailed };

  // Where one tile's bytes are to be: a place of its own, or a slot of the ring.
  struct Place {
    State state = State::kAbsent;
    size_t tile = 0;
    std::byte* memory = nullptr;
    std::byte* host = nullptr;                // while it is read and copied: where in the host tier
    std::optional<Recorder::Mark> copy_mark;  // when its copy was wanted
    bool fresh = false;                       // read, and not used since
    bool copied = false;                      // to the device, and not used since
    bool may_be_there = false;                // from before a restart, and not read since
    bool is_lent = false;                     // a place in the workspace, which a batch has taken
    bool discarded = false;                   // freed when its read or copy ends
    std::optional<Error> error;

    // Where it is read to.
    std::byte* read_to() const { return host != nullptr ? host : memory; }
  };

  struct Cursor {
    uint64_t sweep = 0;
    size_t index = 0;
  };

  struct EmbeddingBlock {
    size_t tensor;
    uint64_t block;
    size_t slot;
  };

  // A block of the embedding with a place of its own.
  enum class FixedBlock : uint8_t { kAbsent, kMayBeThere, kReady };

  // Whether the tile has a place of its own: it is pinned, or its expert has a slot. Lock held.
  bool has_own_place(size_t tile) const {
    return own_[tile].memory != nullptr && !own_[tile].is_lent;
  }
  bool is_kept_by_host(size_t tile) const { return host_ && host_->keeps(tile); }
  void feed();               // lock held
  bool fetch(Place& place);  // lock held
  // Of the layer whose experts begin at plan_.experts[begin] (expert_slots.cc). Lock held.
  void count_experts(size_t begin);
  void place_experts(size_t begin);
  void queue_experts(size_t begin);
  template <typename Use>
  void for_each_used(size_t begin, const Use& use) const;
  void leave_slot(const ExpertTiles& expert);              // lock held
  void leave_place(Place& place);                          // lock held
  void lend(Place& place);                                 // lock held
  void end_loan(Place& place);                             // lock held
  bool is_taken(size_t tile) const;                        // lock held
  bool is_read_ahead(size_t tile) const;                   // lock held
  bool is_being_fetched(const ExpertTiles& expert) const;  // lock held
  void note_busy_experts();                                // lock held
  bool is_left_out(const Tile& tile) const;                // lock held
  bool move_past_unknown_head();                           // lock held
  Place* free_slot();                                      // lock held
  void give_up_sweep();                                    // lock held
  void free_place(Place& place);                           // lock held
  void release_place_in_use();                             // lock held
  Place* next_place();                                     // lock held
  const Tile& tile_of(const Place& place) const;
  Status wait_ready(std::unique_lock<std::mutex>& lock);
  // Waits until `is_over`, which is asked with the lock held, or the deadline for `tile`.
  template <typename IsOver>
  Status wait_until(std::unique_lock<std::mutex>& lock, const Tile& tile, const IsOver& is_over);
  Unexpected read_is_late(const Tile& tile);
  // A thread that reads.
  struct Reader {
    std::unique_ptr<ReadQueue> reads;
    // [reads at once]; a free one has no place.
    struct Slot {
      Place* place = nullptr;
      std::optional<Recorder::Mark> began;
    };
    std::vector<Slot> slots;
    uint32_t first_number = 1;  // of its slots, which count as readers of their own when recorded
    size_t under_way = 0;
    bool is_waiting = false;  // for the end of a read
    std::jthread thread;
  };

  void make_reader();
  void read_loop(Reader& reader, const std::stop_token& stop);
  void begin_reads(Reader& reader, std::unique_lock<std::mutex>& lock, const std::stop_token& stop);
  // Whether the tile lies there already; ends its read if so.
  bool find_there(Place& place, std::unique_lock<std::mutex>& lock);
  // Whether one has ended.
  bool wait_for_read(Reader& reader, std::unique_lock<std::mutex>& lock);
  Read read_of(const Tile& tile, std::byte* memory) const;
  bool can_begin() const;                                     // lock held
  void end_read(Place& place, Status status, bool is_fresh);  // lock held
  void pass_on(Place& place);                                 // lock held
  void copy(Place& place);                                    // lock held
  void end_copy(Place& place, Recorder::Clock::time_point began);
  void become_ready(Place& place);  // lock held
  bool is_idle() const;             // lock held
  void wake_readers();              // lock held
  void request_stop();
  Status check_tile(const Tile& tile, const std::byte* memory) const;
  // Of a read that has ended well.
  void record_read(const std::optional<Recorder::Mark>& begin, const Place& place, uint32_t reader);
  void record_copy(const Place& place, Recorder::Clock::time_point began);
  model::TileView view_of(size_t tile, const std::byte* memory) const;
  std::byte* embedding_slot(size_t slot) const;
  Result<const std::byte*> resident_row(size_t tensor, uint64_t row);
  Status wait_if_there(Place& place);
  Result<const std::byte*> row_in_place(size_t tensor, uint64_t row);
  Result<const std::byte*> cached_row(size_t tensor, uint64_t row);
  // Whether it was read; it was there already otherwise, which only `may_be_there` allows.
  Result<bool> read_embedding_block(const Tile& block, std::byte* memory, bool may_be_there);

  const Plan& plan_;
  std::span<const store::Shard> shards_;
  std::span<std::byte> slab_;
  const kernels::Backend& backend_;
  StreamOptions options_;
  const std::function<Status()> interrupted_;
  Arena* const arena_;  // null: what is read is used where it lies

  Recorder recorder_;

  // The engine thread's own.
  IoCounters counters_;
  ExpertCounters expert_counters_;
  std::list<EmbeddingBlock> embedding_blocks_;  // of the cache, most recently used first
  std::vector<std::byte> device_row_;           // of the head, fetched from the device
  std::vector<float> row_;                      // on its way to the device
  std::vector<FixedBlock> fixed_blocks_;
  bool has_late_read_ = false;

  mutable std::mutex mutex_;
  std::condition_variable_any work_;   // a reader may have something to do
  std::condition_variable_any ready_;  // a read has ended
  std::vector<Place> own_;             // by tile; without memory for those that stream
  std::vector<size_t> yielding_;       // tiles whose places are in the workspace
  uint64_t taken_bytes_ = 0;           // of the workspace, by the batch
  std::vector<Place> ring_;
  std::optional<HostTier> host_;
  size_t copies_under_way_ = 0;
  bool is_stopping_ = false;      // nothing that has been read is copied any more
  std::deque<Place*> in_flight_;  // ring places in the order of use
  std::deque<Place*> queue_;      // to be read, in the order of use
  uint64_t sweep_ = 0;            // number of the current one; 0: none yet
  size_t sweep_end_ = 0;          // index at which it ends
  size_t next_ = 0;               // the engine thread's index in it
  Place* in_use_ = nullptr;
  // Of the current sweep: the stage whose experts were chosen last, and which of them are used.
  std::optional<uint32_t> chosen_stage_;
  std::vector<bool> used_experts_;
  Cursor ahead_{1, 0};  // where reading will go on
  uint64_t resident_bytes_ = 0;
  uint64_t resident_expert_bytes_ = 0;
  std::optional<ExpertCache> expert_cache_;  // where the plan has slots
  // Experts (of plan_.experts) that a read was under way for when its sweep was given up.
  std::vector<uint32_t> busy_experts_;
  Place embedding_place_;  // the block of the embedding that is read
  Tile embedding_tile_;
  size_t readers_running_ = 0;

  bool uses_uring_ = false;
  std::optional<Error> uring_problem_;
  std::vector<std::unique_ptr<Reader>> readers_;  // last: joined before all else goes
};

}  // namespace airllm::stream

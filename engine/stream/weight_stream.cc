#include "engine/stream/weight_stream.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/checked.h"
#include "base/units.h"

namespace airllm::stream {
namespace {

using Clock = std::chrono::steady_clock;

// How often a wait for reading looks whether it is still wanted.
constexpr auto kInterruptInterval = std::chrono::milliseconds(20);
// Pinned tiles that are read ahead; they need no slot, but the queue has to end somewhere.
constexpr size_t kMostQueuedReads = 32;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

WeightStream::WeightStream(const Plan& plan, std::span<const store::Shard> shards,
                           std::span<std::byte> slab, const kernels::Backend& backend,
                           const StreamOptions& options, std::function<Status()> interrupted)
    : plan_(plan),
      shards_(shards),
      slab_(slab),
      backend_(backend),
      options_(options),
      interrupted_(std::move(interrupted)),
      own_(plan.list.tiles.size()),
      ring_(plan.ring_slots) {
  AIRLLM_CHECK(slab.size() >= plan.slab_bytes);
  for (size_t i = 0; i < own_.size(); ++i) {
    own_[i].tile = i;
    const uint64_t offset = plan.pinned_offset[i];
    if (offset != Plan::kStreamed) own_[i].memory = slab_.data() + offset;
  }
  for (size_t i = 0; i < ring_.size(); ++i) {
    ring_[i].memory = slab_.data() + plan.ring_offset() + i * plan.ring_slot_bytes;
  }
  if (plan.expert_slots() > 0) expert_cache_.emplace(plan.expert_cache_shape());
  for (unsigned i = 0; i < options.readers; ++i) make_reader();
  readers_running_ = readers_.size();
  for (const auto& reader : readers_) {
    reader->thread = std::jthread(
        [this, &reader = *reader](const std::stop_token& stop) { read_loop(reader, stop); });
  }
}

WeightStream::~WeightStream() { request_stop(); }

// By io_uring as long as the system gives rings.
void WeightStream::make_reader() {
  auto reader = std::make_unique<Reader>();
  if (options_.reader != ReaderKind::kThreads && !uring_problem_) {
    // What is read in every sweep; the rest is read once.
    const std::span<std::byte> ring =
        slab_.subspan(plan_.ring_offset(), plan_.ring_slots * plan_.ring_slot_bytes);
    auto queue = make_uring_queue(options_.reads_at_once, ring);
    if (queue) {
      reader->reads = std::move(*queue);
      uses_uring_ = true;
    } else {
      uring_problem_ = std::move(queue).error();
    }
  }
  if (!reader->reads) reader->reads = make_blocking_queue();
  reader->slots.resize(reader->reads->room());
  if (!readers_.empty()) {
    const Reader& last = *readers_.back();
    reader->first_number = last.first_number + static_cast<uint32_t>(last.slots.size());
  }
  readers_.push_back(std::move(reader));
}

void WeightStream::request_stop() {
  for (const auto& reader : readers_) {
    reader->thread.request_stop();
    reader->reads->wake();
  }
}

bool WeightStream::stop_reading(std::chrono::milliseconds patience) {
  request_stop();
  std::unique_lock lock(mutex_);
  return ready_.wait_for(lock, patience, [this] { return readers_running_ == 0; });
}

bool WeightStream::readers_are_back() const {
  const std::lock_guard lock(mutex_);
  return readers_running_ == 0;
}

std::vector<std::span<std::byte>> WeightStream::memory_being_read() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::span<std::byte>> out;
  const auto add = [&](const Place& place) {
    if (place.state == State::kReading) out.push_back({place.memory, tile_of(place).read_bytes()});
  };
  std::for_each(own_.begin(), own_.end(), add);
  std::for_each(ring_.begin(), ring_.end(), add);
  add(embedding_place_);
  std::sort(out.begin(), out.end(), [](auto a, auto b) { return a.data() < b.data(); });
  return out;
}

void WeightStream::begin_sweep(bool with_head) {
  const std::lock_guard lock(mutex_);
  if (next_ != sweep_end_) give_up_sweep();
  ++sweep_;
  next_ = 0;
  chosen_stage_.reset();
  sweep_end_ = with_head ? plan_.list.tiles.size() : plan_.list.head_begin;
  if (ahead_.sweep < sweep_) ahead_ = {sweep_, 0};
  feed();
}

// Drops what was read ahead. A read under way keeps its slot until it ends.
void WeightStream::give_up_sweep() {
  if (in_use_ != nullptr) release_place_in_use();
  for (Place* place : queue_) {
    place->state = State::kAbsent;
  }
  queue_.clear();
  for (Place* place : in_flight_) {
    if (place->state == State::kReading)
      place->discarded = true;
    else
      free_place(*place);
  }
  in_flight_.clear();
  for (Place& place : own_) {
    if (place.state == State::kFailed) free_place(place);
  }
  note_busy_experts();
  ahead_ = {sweep_ + 1, 0};
}

void WeightStream::free_place(Place& place) {
  place.state = State::kAbsent;
  place.discarded = false;
  place.fresh = false;
  place.error.reset();
}

WeightStream::Place* WeightStream::free_slot() {
  for (Place& place : ring_) {
    if (place.state == State::kAbsent) return &place;
  }
  return nullptr;
}

// At the head's first tile: whether a sweep has a head is known once it has begun. Returns false
// when reading ahead must wait for that.
bool WeightStream::move_past_unknown_head() {
  if (ahead_.sweep > sweep_) return false;
  if (ahead_.index >= sweep_end_) ahead_ = {ahead_.sweep + 1, 0};
  return true;
}

// Queues reads as far ahead as there is room.
void WeightStream::feed() {
  bool queued = false;
  while (queue_.size() < kMostQueuedReads) {
    if (ahead_.index >= plan_.list.head_begin) {
      const uint64_t sweep = ahead_.sweep;
      if (!move_past_unknown_head()) break;
      if (ahead_.sweep != sweep) continue;
    }
    if (ahead_.sweep > sweep_ + 1) break;
    const size_t tile = ahead_.index;
    if (plan_.list.tiles[tile].expert) {
      if (ahead_.sweep != sweep_ || chosen_stage_ != plan_.list.tiles[tile].stage) break;
      if (is_left_out(plan_.list.tiles[tile])) {
        ++ahead_.index;
        continue;
      }
    }
    Place* place = stays(tile) ? &own_[tile] : free_slot();
    if (place == nullptr) break;
    if (place->state == State::kAbsent) {
      place->state = State::kQueued;
      place->tile = tile;
      queue_.push_back(place);
      if (!stays(tile)) in_flight_.push_back(place);
      queued = true;
    }
    ++ahead_.index;
  }
  if (queued) wake_readers();
}

void WeightStream::choose_experts(const std::vector<bool>& used) {
  const std::lock_guard lock(mutex_);
  AIRLLM_CHECK(next_ < sweep_end_);
  chosen_stage_ = plan_.list.tiles[next_].stage;
  used_experts_ = used;
  const size_t begin = plan_.first_expert_of(*chosen_stage_);
  count_experts(begin);
  if (expert_cache_) place_experts(begin);
  feed();
  queue_experts(begin);
}

bool WeightStream::is_left_out(const Tile& tile) const {
  return tile.expert && chosen_stage_ == tile.stage && !used_experts_[*tile.expert];
}

Result<model::TileView> WeightStream::next_tile(bool& done) {
  std::unique_lock lock(mutex_);
  while (next_ != sweep_end_ && is_left_out(plan_.list.tiles[next_])) ++next_;
  if (next_ == sweep_end_) {
    done = true;
    feed();
    return model::TileView{};
  }
  done = false;
  AIRLLM_CHECK(in_use_ == nullptr);
  recorder_.enter_stage(plan_.list.tiles[next_].stage, counters_);
  AIRLLM_TRY_VOID(wait_ready(lock));
  Place& place = *next_place();
  const uint64_t bytes = plan_.list.tiles[next_].read_bytes();
  (place.fresh ? counters_.read_bytes : counters_.cache_bytes) += bytes;
  if (plan_.list.tiles[next_].expert) {
    (place.fresh ? expert_counters_.read_bytes : expert_counters_.saved_bytes) += bytes;
  }
  place.fresh = false;
  in_use_ = &place;
  return view_of(next_, place.memory);
}

// Where the next tile is, or is to be; null while the ring has no slot for it.
WeightStream::Place* WeightStream::next_place() {
  if (stays(next_)) return &own_[next_];
  if (in_flight_.empty()) return nullptr;
  AIRLLM_CHECK(in_flight_.front()->tile == next_);
  return in_flight_.front();
}

Status WeightStream::wait_ready(std::unique_lock<std::mutex>& lock) {
  AIRLLM_TRY_VOID(wait_until(lock, plan_.list.tiles[next_], [this] {
    const Place* place = next_place();
    return place != nullptr && (place->state == State::kReady || place->state == State::kFailed);
  }));
  if (next_place()->state == State::kFailed) return Unexpected(*next_place()->error);
  return {};
}

template <typename IsOver>
Status WeightStream::wait_until(std::unique_lock<std::mutex>& lock, const Tile& tile,
                                const IsOver& is_over) {
  if (is_over()) return {};
  const Clock::time_point start = Clock::now();
  const std::optional<Recorder::Mark> mark = recorder_.mark();
  while (!ready_.wait_for(lock, kInterruptInterval, is_over)) {
    lock.unlock();
    Status wanted = interrupted_();
    lock.lock();
    if (!wanted) return wanted;
    if (seconds_since(start) > options_.read_deadline_seconds) return read_is_late(tile);
  }
  counters_.wait_seconds += seconds_since(start);
  recorder_.add(mark, Span{});
  return {};
}

Unexpected WeightStream::read_is_late(const Tile& tile) {
  has_late_read_ = true;
  const store::Shard& shard = shards_[tile.shard];
  return Unexpected(ErrorCode::kIo,
                    shard.file_of(shard.tensors[tile.tensor]).path() + ": a read of " +
                        format_size(tile.read_bytes()) + " at offset " +
                        std::to_string(tile.read_offset()) + " did not come back within " +
                        std::to_string(static_cast<int>(options_.read_deadline_seconds)) + " s",
                    "check the disk (dmesg tells of its errors); read-timeout sets the limit");
}

void WeightStream::release_tile() {
  const std::lock_guard lock(mutex_);
  AIRLLM_CHECK(in_use_ != nullptr);
  release_place_in_use();
  ++next_;
  feed();
}

void WeightStream::release_place_in_use() {
  if (!stays(in_use_->tile)) {
    in_flight_.pop_front();
    free_place(*in_use_);
  }
  in_use_ = nullptr;
}

model::TileView WeightStream::view_of(size_t index, const std::byte* memory) const {
  const Tile& tile = plan_.list.tiles[index];
  model::TileView view;
  view.stage = tile.stage;
  view.step = tile.step;
  view.data = memory + (tile.data_offset - tile.read_offset());
  const store::ShardTensor& tensor = shards_[tile.shard].tensors[tile.tensor];
  view.format = tensor.format;
  view.is_last = tile.row_begin + tile.rows == tensor.rows;
  view.row_begin = tile.row_begin;
  view.rows = tile.rows;
  return view;
}

const Tile& WeightStream::tile_of(const Place& place) const {
  return &place == &embedding_place_ ? embedding_tile_ : plan_.list.tiles[place.tile];
}

void WeightStream::wake_readers() {
  work_.notify_all();
  for (const auto& reader : readers_) {
    if (reader->is_waiting && reader->under_way < reader->slots.size()) reader->reads->wake();
  }
}

void WeightStream::read_loop(Reader& reader, const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  for (;;) {
    begin_reads(reader, lock, stop);
    if (reader.under_way > 0) {
      if (wait_for_read(reader, lock) && !stop.stop_requested()) feed();
    } else if (stop.stop_requested() ||
               !work_.wait(lock, stop, [this] { return !queue_.empty(); })) {
      break;
    }
  }
  --readers_running_;
  ready_.notify_all();
}

void WeightStream::begin_reads(Reader& reader, std::unique_lock<std::mutex>& lock,
                               const std::stop_token& stop) {
  while (!queue_.empty() && reader.under_way < reader.slots.size() && !stop.stop_requested()) {
    Place& place = *queue_.front();
    queue_.pop_front();
    place.state = State::kReading;
    const auto slot = std::find_if(reader.slots.begin(), reader.slots.end(),
                                   [](const Reader::Slot& s) { return s.place == nullptr; });
    *slot = {&place, recorder_.mark()};
    ++reader.under_way;
    const Tile& tile = tile_of(place);
    lock.unlock();
    if (options_.before_read) options_.before_read();
    reader.reads->begin(read_of(tile, place.memory),
                        static_cast<size_t>(slot - reader.slots.begin()));
    lock.lock();
  }
}

// Through the page cache nothing but the tile itself is read: the file may end with it.
Read WeightStream::read_of(const Tile& tile, std::byte* memory) const {
  const store::Shard& shard = shards_[tile.shard];
  const store::DiskFile& file = shard.file_of(shard.tensors[tile.tensor]);
  if (file.is_direct()) return {&file, tile.read_offset(), {memory, tile.read_bytes()}};
  return {
      &file, tile.data_offset, {memory + (tile.data_offset - tile.read_offset()), tile.data_bytes}};
}

bool WeightStream::wait_for_read(Reader& reader, std::unique_lock<std::mutex>& lock) {
  reader.is_waiting = true;
  lock.unlock();
  std::optional<EndedRead> ended = reader.reads->wait();
  Place* place = nullptr;
  if (ended) {
    place = reader.slots[ended->token].place;
    const Tile& tile = tile_of(*place);
    if (ended->status) ended->status = check_tile(tile, place->memory);
    if (shards_[tile.shard].in_place) {
      ended->status = with_remedy(std::move(ended->status), store::kChangedRemedy);
    }
  }
  lock.lock();
  reader.is_waiting = false;
  if (place == nullptr) return false;
  const Reader::Slot slot = std::exchange(reader.slots[ended->token], {});
  --reader.under_way;
  if (ended->status && !place->discarded) {
    record_read(slot.began, *place, reader.first_number + static_cast<uint32_t>(ended->token));
  }
  end_read(*place, std::move(ended->status));
  ready_.notify_all();
  return true;
}

void WeightStream::end_read(Place& place, Status status) {
  if (place.discarded) {
    free_place(place);
  } else if (status) {
    place.state = State::kReady;
    place.fresh = true;
    if (&place == &own_[place.tile]) {
      resident_bytes_ += tile_of(place).read_bytes();
      if (tile_of(place).expert) resident_expert_bytes_ += tile_of(place).read_bytes();
    }
  } else {
    place.state = State::kFailed;
    place.error = std::move(status).error();
  }
}

void WeightStream::record_read(const std::optional<Recorder::Mark>& begin, const Place& place,
                               uint32_t reader) {
  const Tile& tile = tile_of(place);
  Span span;
  span.kind = Span::Kind::kRead;
  span.reader = reader;
  span.index = tile.shard;
  span.tells_rows = &place == &embedding_place_ || tile.expert.has_value();
  span.offset_bytes = tile.read_offset();
  span.read_bytes = tile.read_bytes();
  recorder_.add(begin, span);
}

Status WeightStream::check_tile(const Tile& tile, const std::byte* memory) const {
  const store::Shard& shard = shards_[tile.shard];
  const store::ShardTensor& tensor = shard.tensors[tile.tensor];
  const std::byte* data = memory + (tile.data_offset - tile.read_offset());
  const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
  for (uint64_t i = 0; i < tile.blocks; ++i) {
    const uint64_t begin = i * block_bytes;
    const uint64_t bytes = std::min(block_bytes, tile.data_bytes - begin);
    AIRLLM_TRY_VOID(store::check_block(shard, tensor, tile.first_block + i, {data + begin, bytes}));
  }
  return {};
}

Status WeightStream::lookup(size_t number, uint64_t row, float* out) {
  const store::ShardTensor& tensor = shards_.front().tensors[number];
  AIRLLM_CHECK(row < tensor.rows);
  const std::byte* data = resident_row(number, row);
  if (data == nullptr) {
    AIRLLM_TRY(data, cached_row(number, row));
  }
  backend_.to_f32(data, tensor.format, out,
                  tensor.row_bytes / kernels::bytes_per_element(tensor.format));
  return {};
}

// The row in a pinned tile of a head that is tied to the embedding; null when it is not there.
const std::byte* WeightStream::resident_row(size_t number, uint64_t row) {
  const std::vector<Tile>& tiles = plan_.list.tiles;
  if (plan_.list.tied_begin == plan_.list.tied_end || number != 0) return nullptr;
  const auto begin = tiles.begin() + static_cast<std::ptrdiff_t>(plan_.list.tied_begin);
  const auto end = tiles.begin() + static_cast<std::ptrdiff_t>(plan_.list.tied_end);
  auto after = std::upper_bound(begin, end, row,
                                [](uint64_t r, const Tile& tile) { return r < tile.row_begin; });
  const Tile& tile = *(after - 1);
  const auto index = static_cast<size_t>(after - 1 - tiles.begin());
  const std::lock_guard lock(mutex_);
  if (own_[index].state != State::kReady) return nullptr;
  const uint64_t row_bytes = shards_[tile.shard].tensors[tile.tensor].row_bytes;
  counters_.cache_bytes += row_bytes;
  return own_[index].memory + (tile.data_offset - tile.read_offset()) +
         (row - tile.row_begin) * row_bytes;
}

// The row in the cache of the embedding's blocks, which is filled by use, least recently used first
// out.
Result<const std::byte*> WeightStream::cached_row(size_t number, uint64_t row) {
  const store::Shard& shard = shards_.front();
  const store::ShardTensor& tensor = shard.tensors[number];
  const uint64_t block = row / tensor.rows_per_block;
  Tile tile;
  tile.tensor = static_cast<uint32_t>(number);
  tile.first_block = block;
  tile.blocks = 1;
  tile.row_begin = block * tensor.rows_per_block;
  tile.rows = std::min(tensor.rows_per_block, tensor.rows - tile.row_begin);
  tile.data_offset = tensor.offset_bytes + tile.row_begin * tensor.row_bytes;
  tile.data_bytes = tile.rows * tensor.row_bytes;

  auto found =
      std::find_if(embedding_blocks_.begin(), embedding_blocks_.end(),
                   [&](const EmbeddingBlock& b) { return b.tensor == number && b.block == block; });
  const bool is_hit = found != embedding_blocks_.end();
  size_t slot = embedding_blocks_.size();
  if (is_hit) {
    slot = found->slot;
    embedding_blocks_.erase(found);
  } else if (slot >= plan_.embedding_slots) {
    slot = embedding_blocks_.back().slot;
    embedding_blocks_.pop_back();
  }
  std::byte* memory = slab_.data() + plan_.embedding_offset() + slot * plan_.embedding_slot_bytes;
  if (!is_hit) {
    Status status = read_embedding_block(tile, memory);
    if (!status) {
      // The slots in use stay numbered without a gap only if the lost one is the last.
      embedding_blocks_.clear();
      return Unexpected(std::move(status).error());
    }
    counters_.read_bytes += tile.read_bytes();
  } else {
    counters_.cache_bytes += tensor.row_bytes;
  }
  embedding_blocks_.push_front({number, block, slot});
  return memory + (tile.data_offset - tile.read_offset()) +
         (row - tile.row_begin) * tensor.row_bytes;
}

// Through a reader, so that a read that hangs does not hang the engine thread.
Status WeightStream::read_embedding_block(const Tile& block, std::byte* memory) {
  std::unique_lock lock(mutex_);
  Place& place = embedding_place_;
  // One that was interrupted may still be under way.
  AIRLLM_TRY_VOID(
      wait_until(lock, embedding_tile_, [&] { return place.state != State::kReading; }));
  free_place(place);
  embedding_tile_ = block;
  place.memory = memory;
  place.state = State::kQueued;
  queue_.push_front(&place);
  wake_readers();
  Status waited = wait_until(lock, embedding_tile_, [&] {
    return place.state == State::kReady || place.state == State::kFailed;
  });
  if (!waited) {
    if (place.state == State::kQueued) {
      std::erase(queue_, &place);
      free_place(place);
    }
    return waited;
  }
  if (place.state == State::kFailed) return Unexpected(*place.error);
  return {};
}

IoCounters WeightStream::take_counters() { return std::exchange(counters_, {}); }

uint64_t WeightStream::resident_bytes() const {
  const std::lock_guard lock(mutex_);
  return resident_bytes_;
}

uint64_t WeightStream::resident_expert_bytes() const {
  const std::lock_guard lock(mutex_);
  return resident_expert_bytes_;
}

}  // namespace airllm::stream

#include "engine/stream/weight_stream.h"

#include <algorithm>
#include <chrono>
#include <iterator>

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
                           const StreamOptions& options, std::function<Status()> interrupted,
                           const HostSide* host)
    : plan_(plan),
      shards_(shards),
      slab_(slab),
      backend_(backend),
      options_(options),
      interrupted_(std::move(interrupted)),
      arena_(host != nullptr ? host->arena : nullptr),
      fixed_blocks_(plan.embedding_blocks,
                    options.is_adopted ? FixedBlock::kMayBeThere : FixedBlock::kAbsent),
      own_(plan.list.tiles.size()),
      ring_(plan.ring_slots) {
  AIRLLM_CHECK(slab.size() >= plan.slab_bytes);
  if (host != nullptr) host_.emplace(*host->plan, host->memory);
  for (size_t i = 0; i < own_.size(); ++i) {
    own_[i].tile = i;
    if (!plan.stays(i)) continue;
    own_[i].memory = slab_.data() + plan.pinned_offset[i];
    own_[i].may_be_there = options.is_adopted && plan.lasts(i);
    if (plan.yields(i)) yielding_.push_back(i);
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

WeightStream::~WeightStream() {
  request_stop();
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [this] { return is_idle(); });
}

// By io_uring as long as the system gives rings.
void WeightStream::make_reader() {
  auto reader = std::make_unique<Reader>();
  if (options_.reader != ReaderKind::kThreads && !uring_problem_) {
    // What is read in every sweep; the rest is read once.
    const std::span<std::byte> ring =
        host_ ? host_->slots()
              : slab_.subspan(plan_.ring_offset(), plan_.ring_slots * plan_.ring_slot_bytes);
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
  is_stopping_ = true;
  ready_.wait_for(lock, patience, [this] { return is_idle(); });
  ready_.wait(lock, [this] { return copies_under_way_ == 0; });  // they take no longer than a tile
  return is_idle();
}

bool WeightStream::readers_are_back() const {
  const std::lock_guard lock(mutex_);
  return is_idle();
}

bool WeightStream::is_idle() const { return readers_running_ == 0 && copies_under_way_ == 0; }

std::vector<std::span<std::byte>> WeightStream::memory_being_read() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::span<std::byte>> out;
  const auto add = [&](const Place& place) {
    if (place.state != State::kReading) return;
    out.push_back({place.read_to(), tile_of(place).read_bytes()});
  };
  std::for_each(own_.begin(), own_.end(), add);
  std::for_each(ring_.begin(), ring_.end(), add);
  add(embedding_place_);
  std::sort(out.begin(), out.end(), [](auto a, auto b) { return a.data() < b.data(); });
  return out;
}

// A place that is lent to the workspace is free of its tile, and of reads that fill it, before the
// sweep begins.
Status WeightStream::take_workspace(uint64_t bytes) {
  std::unique_lock lock(mutex_);
  if (next_ != sweep_end_) give_up_sweep();
  taken_bytes_ = bytes;
  const auto is_being_read = [&](size_t tile) {
    return is_taken(tile) && own_[tile].state == State::kReading;
  };
  // What was read ahead passed by those that lay there.
  if (std::any_of(yielding_.begin(), yielding_.end(), [&](size_t tile) {
        return is_taken(tile) && !own_[tile].is_lent && is_read_ahead(tile);
      })) {
    give_up_sweep();
  }
  for (const size_t tile : yielding_) {
    if (is_taken(tile)) {
      lend(own_[tile]);
    } else {
      end_loan(own_[tile]);
    }
  }
  const auto late = std::find_if(yielding_.begin(), yielding_.end(), is_being_read);
  if (late == yielding_.end()) return {};
  return wait_until(lock, plan_.list.tiles[*late], [&] {
    return std::none_of(yielding_.begin(), yielding_.end(), is_being_read);
  });
}

void WeightStream::lend(Place& place) {
  if (place.is_lent) return;
  place.is_lent = true;
  if (place.state == State::kQueued) std::erase(queue_, &place);
  if (place.state == State::kReading) {
    place.discarded = true;
  } else {
    leave_place(place);
  }
}

// Not of a tile that is on its way to the ring, nor while a read that was given up fills the place.
void WeightStream::end_loan(Place& place) {
  if (place.state == State::kAbsent && !is_read_ahead(place.tile)) place.is_lent = false;
}

// Whether its place is the batch's.
bool WeightStream::is_taken(size_t tile) const { return plan_.pinned_offset[tile] < taken_bytes_; }

// Whether reading for the next sweep has come past the tile.
bool WeightStream::is_read_ahead(size_t tile) const {
  return ahead_.sweep > sweep_ && tile < ahead_.index;
}

void WeightStream::leave_place(Place& place) {
  if (place.state == State::kReady) {
    const uint64_t bytes = tile_of(place).read_bytes();
    resident_bytes_ -= is_kept_by_host(place.tile) ? 0 : bytes;
    resident_expert_bytes_ -= tile_of(place).expert ? bytes : 0;
  }
  free_place(place);
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

// Drops what was read ahead. A read or a copy under way keeps its slot until it ends.
void WeightStream::give_up_sweep() {
  if (in_use_ != nullptr) release_place_in_use();
  for (Place* place : queue_) {
    place->state = State::kAbsent;
  }
  queue_.clear();
  for (Place* place : in_flight_) {
    if (place->state == State::kReading || place->state == State::kCopying)
      place->discarded = true;
    else
      free_place(*place);
  }
  in_flight_.clear();
  for (Place& place : own_) {
    if (place.state == State::kFailed) free_place(place);
  }
  note_busy_experts();
  next_ = sweep_end_;
  ahead_ = {sweep_ + 1, 0};
}

void WeightStream::free_place(Place& place) {
  place.state = State::kAbsent;
  place.discarded = false;
  place.fresh = false;
  place.copied = false;
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
    Place* place = has_own_place(tile) ? &own_[tile] : free_slot();
    if (place == nullptr) break;
    if (place->state == State::kAbsent) {
      place->tile = tile;
      if (!has_own_place(tile)) in_flight_.push_back(place);
      queued |= fetch(*place);
    }
    ++ahead_.index;
  }
  if (queued) wake_readers();
}

// From the host tier if it lies there. Returns whether it was queued to be read.
bool WeightStream::fetch(Place& place) {
  place.state = State::kQueued;
  if (host_ && host_->find(place.tile) != nullptr) {
    copy(place);
    return false;
  }
  queue_.push_back(&place);
  return true;
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
  if (place.copied) counters_.copied_bytes += plan_.list.tiles[next_].data_bytes;
  if (plan_.list.tiles[next_].expert) {
    (place.fresh ? expert_counters_.read_bytes : expert_counters_.saved_bytes) += bytes;
  }
  place.fresh = false;
  place.copied = false;
  in_use_ = &place;
  return view_of(next_, place.memory);
}

// Where the next tile is, or is to be; null while the ring has no slot for it.
WeightStream::Place* WeightStream::next_place() {
  if (has_own_place(next_)) return &own_[next_];
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
  const size_t tile = in_use_->tile;
  if (!has_own_place(tile)) {
    in_flight_.pop_front();
    free_place(*in_use_);
    if (!is_taken(tile)) end_loan(own_[tile]);
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
  view.outliers = tensor.outliers;
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
    } else if (stop.stop_requested() || !work_.wait(lock, stop, [this] { return can_begin(); })) {
      break;
    }
  }
  --readers_running_;
  ready_.notify_all();
}

// Whether the next read has memory to fill.
bool WeightStream::can_begin() const {
  if (queue_.empty()) return false;
  const Place& next = *queue_.front();
  return !host_ || &next == &embedding_place_ || host_->find(next.tile) != nullptr ||
         host_->can_take(next.tile);
}

void WeightStream::begin_reads(Reader& reader, std::unique_lock<std::mutex>& lock,
                               const std::stop_token& stop) {
  while (can_begin() && reader.under_way < reader.slots.size() && !stop.stop_requested()) {
    Place& place = *queue_.front();
    queue_.pop_front();
    if (host_ && &place != &embedding_place_) {
      if (host_->find(place.tile) != nullptr) {  // since it was queued
        copy(place);
        continue;
      }
      place.host = host_->take(place.tile);
    }
    place.state = State::kReading;
    if (place.may_be_there && find_there(place, lock)) {
      if (!stop.stop_requested()) feed();
      continue;
    }
    const auto slot = std::find_if(reader.slots.begin(), reader.slots.end(),
                                   [](const Reader::Slot& s) { return s.place == nullptr; });
    *slot = {&place, recorder_.mark()};
    ++reader.under_way;
    const Tile& tile = tile_of(place);
    lock.unlock();
    if (options_.before_read) options_.before_read();
    reader.reads->begin(read_of(tile, place.read_to()),
                        static_cast<size_t>(slot - reader.slots.begin()));
    lock.lock();
  }
}

// What its checksums do not confirm, as of a tile that was never read, is read.
bool WeightStream::find_there(Place& place, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const Status found = check_tile(tile_of(place), place.memory);
  lock.lock();
  if (!found) return false;
  end_read(place, {}, false);
  ready_.notify_all();
  return true;
}

Read WeightStream::read_of(const Tile& tile, std::byte* memory) const {
  const FileExtent extent = extent_of(tile, shards_);
  return {extent.file,
          extent.offset_bytes,
          {memory + (extent.offset_bytes - tile.read_offset()), extent.bytes}};
}

bool WeightStream::wait_for_read(Reader& reader, std::unique_lock<std::mutex>& lock) {
  reader.is_waiting = true;
  lock.unlock();
  std::optional<EndedRead> ended = reader.reads->wait();
  Place* place = nullptr;
  if (ended) {
    place = reader.slots[ended->token].place;
    const Tile& tile = tile_of(*place);
    if (ended->status) ended->status = check_tile(tile, place->read_to());
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
  end_read(*place, std::move(ended->status), true);
  ready_.notify_all();
  return true;
}

void WeightStream::end_read(Place& place, Status status, bool is_fresh) {
  place.may_be_there = false;
  if (place.host != nullptr) {
    const bool is_whole = status.has_value();
    if (is_whole && host_->keeps(place.tile)) resident_bytes_ += tile_of(place).read_bytes();
    if (is_whole && !place.discarded && !is_stopping_) return pass_on(place);
    host_->give_back(place.tile, std::exchange(place.host, nullptr), is_whole);
    wake_readers();
  }
  if (place.discarded) {
    free_place(place);
  } else if (status) {
    place.fresh = is_fresh;
    become_ready(place);
  } else {
    place.state = State::kFailed;
    place.error = std::move(status).error();
  }
}

void WeightStream::become_ready(Place& place) {
  place.state = State::kReady;
  if (&place != &own_[place.tile]) return;  // which is never the embedding's
  const uint64_t bytes = tile_of(place).read_bytes();
  resident_bytes_ += is_kept_by_host(place.tile) ? 0 : bytes;
  resident_expert_bytes_ += tile_of(place).expert ? bytes : 0;
}

// From the host tier to the device, what has just been read.
void WeightStream::pass_on(Place& place) {
  place.fresh = true;
  if (host_->keeps(place.tile)) {
    host_->give_back(place.tile, std::exchange(place.host, nullptr), true);
  }
  copy(place);
}

// What lies in the host tier.
void WeightStream::copy(Place& place) {
  const Tile& tile = tile_of(place);
  const std::byte* const from = place.host != nullptr ? place.host : host_->find(place.tile);
  const uint64_t begin = tile.data_offset - tile.read_offset();
  place.state = State::kCopying;
  place.copy_mark = recorder_.mark();
  ++copies_under_way_;
  arena_->copy_in(place.memory + begin, {from + begin, tile.data_bytes},
                  [this, &place](Recorder::Clock::time_point began) { end_copy(place, began); });
}

void WeightStream::end_copy(Place& place, Recorder::Clock::time_point began) {
  const std::lock_guard lock(mutex_);
  --copies_under_way_;
  if (place.host != nullptr) {
    host_->give_back(place.tile, std::exchange(place.host, nullptr), true);
    wake_readers();
  }
  if (place.discarded) {
    free_place(place);
  } else {
    record_copy(place, began);
    place.copied = true;
    become_ready(place);
  }
  if (!is_stopping_) feed();
  ready_.notify_all();
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

void WeightStream::record_copy(const Place& place, Recorder::Clock::time_point began) {
  if (!place.copy_mark) return;
  const Tile& tile = tile_of(place);
  Span span;
  span.kind = Span::Kind::kCopy;
  span.reader =
      readers_.back()->first_number + static_cast<uint32_t>(readers_.back()->slots.size());
  span.index = tile.shard;
  span.tells_rows = tile.expert.has_value();
  span.read_bytes = tile.data_bytes;
  recorder_.add(Recorder::Mark{began, place.copy_mark->sweep}, span);
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
  AIRLLM_TRY(const std::byte* data, resident_row(number, row));
  if (data == nullptr && !fixed_blocks_.empty() &&
      plan_.first_embedding_block[number] != Plan::kNoPlace) {
    AIRLLM_TRY(data, row_in_place(number, row));
  }
  if (data == nullptr) {
    AIRLLM_TRY(data, cached_row(number, row));
  }
  const uint64_t width = tensor.shape.back();
  if (arena_ == nullptr) {
    backend_.to_f32(data, tensor.format, out, width);
    return {};
  }
  row_.resize(width);
  backend_.to_f32(data, tensor.format, row_.data(), width);
  arena_->write(reinterpret_cast<std::byte*>(out), std::as_bytes(std::span(row_)));
  return {};
}

// The row in a pinned tile of a head that is tied to the embedding; null when it is not there.
Result<const std::byte*> WeightStream::resident_row(size_t number, uint64_t row) {
  const std::vector<Tile>& tiles = plan_.list.tiles;
  const std::byte* const nowhere = nullptr;
  if (plan_.list.tied_begin == plan_.list.tied_end || number != 0) return nowhere;
  const auto begin = tiles.begin() + static_cast<std::ptrdiff_t>(plan_.list.tied_begin);
  const auto end = tiles.begin() + static_cast<std::ptrdiff_t>(plan_.list.tied_end);
  auto after = std::upper_bound(begin, end, row,
                                [](uint64_t r, const Tile& tile) { return r < tile.row_begin; });
  const Tile& tile = *(after - 1);
  const auto index = static_cast<size_t>(after - 1 - tiles.begin());
  if (has_own_place(index)) AIRLLM_TRY_VOID(wait_if_there(own_[index]));
  const uint64_t row_bytes = shards_[tile.shard].tensors[tile.tensor].row_bytes;
  const uint64_t skip = tile.data_offset - tile.read_offset() + (row - tile.row_begin) * row_bytes;
  const std::lock_guard lock(mutex_);
  const std::byte* const kept = host_ ? host_->find(index) : nullptr;
  if (kept == nullptr && own_[index].state != State::kReady) return nowhere;
  counters_.cache_bytes += row_bytes;
  if (kept != nullptr) return kept + skip;
  if (arena_ == nullptr) return own_[index].memory + skip;
  device_row_.resize(row_bytes);
  arena_->read(device_row_, own_[index].memory + skip);
  return device_row_.data();
}

std::byte* WeightStream::embedding_slot(size_t slot) const {
  if (host_) return host_->embedding_slot(slot);
  return slab_.data() + plan_.embedding_offset() + slot * plan_.embedding_slot_bytes;
}

// What may lie there from before a restart is looked at now rather than in its turn, so that none
// of its rows is read.
Status WeightStream::wait_if_there(Place& place) {
  std::unique_lock lock(mutex_);
  if (!place.may_be_there) return {};
  if (place.state != State::kReading) {
    std::erase(queue_, &place);
    place.state = State::kQueued;
    queue_.push_front(&place);
    wake_readers();
  }
  return wait_until(lock, tile_of(place),
                    [&] { return place.state == State::kReady || place.state == State::kFailed; });
}

namespace {

// The block of a tensor of the first shard that holds the row.
Tile block_of_row(const store::ShardTensor& tensor, size_t number, uint64_t row) {
  const uint64_t block = row / tensor.rows_per_block;
  Tile tile;
  tile.tensor = static_cast<uint32_t>(number);
  tile.first_block = block;
  tile.blocks = 1;
  tile.row_begin = block * tensor.rows_per_block;
  tile.rows = std::min(tensor.rows_per_block, tensor.rows - tile.row_begin);
  tile.data_offset = tensor.offset_bytes + tile.row_begin * tensor.row_bytes;
  tile.data_bytes = tile.rows * tensor.row_bytes;
  return tile;
}

}  // namespace

// The row in its block's own place.
Result<const std::byte*> WeightStream::row_in_place(size_t number, uint64_t row) {
  const store::ShardTensor& tensor = shards_.front().tensors[number];
  const Tile tile = block_of_row(tensor, number, row);
  const uint64_t index = plan_.first_embedding_block[number] + tile.first_block;
  std::byte* memory = slab_.data() + plan_.lasting_offset() + index * plan_.embedding_slot_bytes;
  FixedBlock& block = fixed_blocks_[index];
  bool was_read = false;
  if (block != FixedBlock::kReady) {
    AIRLLM_TRY(was_read, read_embedding_block(tile, memory, block == FixedBlock::kMayBeThere));
    block = FixedBlock::kReady;
  }
  if (was_read) {
    counters_.read_bytes += tile.read_bytes();
  } else {
    counters_.cache_bytes += tensor.row_bytes;
  }
  const std::byte* const data = memory + (tile.data_offset - tile.read_offset());
  return data + (row - tile.row_begin) * tensor.row_bytes;
}

// The row in the cache of the embedding's blocks, which is filled by use, least recently used first
// out.
Result<const std::byte*> WeightStream::cached_row(size_t number, uint64_t row) {
  const store::ShardTensor& tensor = shards_.front().tensors[number];
  const Tile tile = block_of_row(tensor, number, row);
  const uint64_t block = tile.first_block;
  auto found =
      std::find_if(embedding_blocks_.begin(), embedding_blocks_.end(),
                   [&](const EmbeddingBlock& b) { return b.tensor == number && b.block == block; });
  const bool is_hit = found != embedding_blocks_.end();
  if (!is_hit) {
    const size_t used = embedding_blocks_.size();
    const size_t slots = host_ ? host_->embedding_slots() : plan_.embedding_slots;
    found = used < slots ? embedding_blocks_.insert(embedding_blocks_.end(), {number, block, used})
                         : std::prev(embedding_blocks_.end());
  }
  std::byte* memory = embedding_slot(found->slot);
  if (!is_hit) {
    Result<bool> was_read = read_embedding_block(tile, memory, false);
    if (!was_read) {
      // The slots in use stay numbered without a gap only if the lost one is the last.
      embedding_blocks_.clear();
      return Unexpected(std::move(was_read).error());
    }
    *found = {number, block, found->slot};
    counters_.read_bytes += tile.read_bytes();
  } else {
    counters_.cache_bytes += tensor.row_bytes;
  }
  embedding_blocks_.splice(embedding_blocks_.begin(), embedding_blocks_, found);
  return memory + (tile.data_offset - tile.read_offset()) +
         (row - tile.row_begin) * tensor.row_bytes;
}

// Through a reader, so that a read that hangs does not hang the engine thread.
Result<bool> WeightStream::read_embedding_block(const Tile& block, std::byte* memory,
                                                bool may_be_there) {
  std::unique_lock lock(mutex_);
  Place& place = embedding_place_;
  // One that was interrupted may still be under way.
  AIRLLM_TRY_VOID(
      wait_until(lock, embedding_tile_, [&] { return place.state != State::kReading; }));
  free_place(place);
  embedding_tile_ = block;
  place.memory = memory;
  place.may_be_there = may_be_there;
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
    return Unexpected(std::move(waited).error());
  }
  if (place.state == State::kFailed) return Unexpected(*place.error);
  return place.fresh;
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

std::vector<std::span<const std::byte>> WeightStream::resident_memory() const {
  std::vector<std::span<const std::byte>> out;
  {
    const std::lock_guard lock(mutex_);
    for (const Place& place : own_) {
      const std::byte* const memory = host_                          ? host_->find(place.tile)
                                      : place.state == State::kReady ? place.memory
                                                                     : nullptr;
      if (memory != nullptr) out.emplace_back(memory, tile_of(place).read_bytes());
    }
  }
  std::sort(out.begin(), out.end(), [](auto a, auto b) { return a.data() < b.data(); });
  size_t last = 0;
  for (size_t i = 1; i < out.size(); ++i) {
    if (out[last].data() + out[last].size() == out[i].data()) {
      out[last] = {out[last].data(), out[last].size() + out[i].size()};
    } else {
      out[++last] = out[i];
    }
  }
  out.resize(std::min(out.size(), last + 1));
  return out;
}

bool WeightStream::is_reading() const {
  const std::lock_guard lock(mutex_);
  return !queue_.empty() || std::any_of(readers_.begin(), readers_.end(),
                                        [](const auto& reader) { return reader->under_way > 0; });
}

}  // namespace airllm::stream

#include "engine/stream/ceiling_reader.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/check.h"

namespace airllm::stream {
namespace {

// Reads of 1 MiB, eight at once: where disks are as fast as they get, and more is no faster.
constexpr unsigned kUringReads = 8;
constexpr size_t kThreads = 4;
constexpr auto kLookInterval = std::chrono::milliseconds(20);
// How long one who cancels waits for reads under way, which come back within milliseconds unless
// something is wrong with the disk.
constexpr auto kCancelPatience = std::chrono::milliseconds(500);

}  // namespace

std::vector<FileExtent> extents_to_read(const Plan& plan, std::span<const store::Shard> shards,
                                        const HostPlan* host) {
  std::vector<FileExtent> sorted;
  for (const SpreadTile& tile : streamed_tiles(plan)) {
    if (host != nullptr && host->keeps(tile.index)) continue;
    sorted.push_back(extent_of(plan.list.tiles[tile.index], shards));
  }
  if (sorted.empty()) {
    for (const Tile& tile : plan.list.tiles) sorted.push_back(extent_of(tile, shards));
  }
  std::sort(sorted.begin(), sorted.end(), [](const FileExtent& a, const FileExtent& b) {
    if (a.file != b.file) return std::less<>()(a.file, b.file);
    return a.offset_bytes < b.offset_bytes;
  });
  std::vector<FileExtent> joined;
  for (const FileExtent& next : sorted) {
    FileExtent* const last = joined.empty() ? nullptr : &joined.back();
    const bool follows = last != nullptr && last->file == next.file &&
                         next.offset_bytes <= last->offset_bytes + last->bytes;
    if (!follows) {
      joined.push_back(next);
      continue;
    }
    const uint64_t end = std::max(last->offset_bytes + last->bytes, next.offset_bytes + next.bytes);
    last->bytes = end - last->offset_bytes;
  }
  return joined;
}

Result<std::unique_ptr<CeilingReader>> CeilingReader::create(std::vector<FileExtent> extents,
                                                             ReaderKind kind,
                                                             std::shared_ptr<const void> keeps) {
  AIRLLM_CHECK(!extents.empty());
  std::unique_ptr<CeilingReader> reader(new CeilingReader(std::move(extents)));
  reader->keeps_ = std::move(keeps);
  AIRLLM_TRY(reader->slab_, Slab::create(kMemoryBytes));
  const std::span<std::byte> memory = reader->slab_.memory();
  if (kind != ReaderKind::kThreads) {
    if (auto queue = make_uring_queue(kUringReads, memory)) {
      reader->reader_name_ = kUringName;
      reader->add_reader(std::move(*queue), memory);
      return reader;
    }
  }
  const size_t share = memory.size() / kThreads;
  for (size_t i = 0; i < kThreads; ++i) {
    reader->add_reader(make_blocking_queue(), memory.subspan(i * share, share));
  }
  return reader;
}

void CeilingReader::add_reader(std::unique_ptr<ReadQueue> queue, std::span<std::byte> memory) {
  Reader reader;
  const size_t slots = queue->room();
  const size_t share = memory.size() / slots;
  for (size_t i = 0; i < slots; ++i) reader.slots.push_back(memory.subspan(i * share, share));
  reader.reading.resize(slots, 0);
  reader.queue = std::move(queue);
  readers_.push_back(std::move(reader));
}

bool CeilingReader::is_back() const {
  const std::lock_guard lock(mutex_);
  return running_ == 0;
}

Result<ReadRate> CeilingReader::measure(const CeilingLimits& limits, const std::stop_token& stop) {
  AIRLLM_CHECK(is_back());
  begin(limits);
  std::unique_lock lock(mutex_);
  AIRLLM_TRY_VOID(wait_for_end(lock, stop));
  lock.unlock();
  threads_.clear();  // they are over
  if (error_) return Unexpected(*error_);
  return ReadRate{bytes_, std::chrono::duration<double>(last_end_ - began_).count()};
}

void CeilingReader::begin(const CeilingLimits& limits) {
  limits_ = limits;
  bytes_ = 0;
  stopping_ = false;
  error_.reset();
  began_ = last_end_ = Clock::now();
  running_ = readers_.size();
  for (Reader& reader : readers_) {
    threads_.emplace_back([this, &reader] { read_loop(reader); });
  }
}

Status CeilingReader::wait_for_end(std::unique_lock<std::mutex>& lock,
                                   const std::stop_token& stop) {
  std::optional<Clock::time_point> cancelled_at;
  while (!changed_.wait_for(lock, kLookInterval, [this] { return running_ == 0; })) {
    const Clock::time_point now = Clock::now();
    if (stop.stop_requested() && !cancelled_at) {
      stopping_ = true;
      cancelled_at = now;
    }
    if (cancelled_at && now - *cancelled_at > kCancelPatience) break;
    if (now - last_end_ <= limits_.deadline) continue;
    stopping_ = true;
    return Unexpected(ErrorCode::kIo,
                      extents_[extent_].file->path() + ": a read did not come back within " +
                          std::to_string(limits_.deadline.count() / 1000) + " s",
                      "check the disk (dmesg tells of its errors); read-timeout sets the limit");
  }
  if (stop.stop_requested()) return Unexpected(ErrorCode::kCancelled, "cancelled");
  return {};
}

void CeilingReader::read_loop(Reader& reader) {
  std::unique_lock lock(mutex_);
  for (;;) {
    begin_reads(reader, lock);
    if (reader.under_way == 0) break;
    lock.unlock();
    const std::optional<EndedRead> ended = reader.queue->wait();
    lock.lock();
    if (ended) end_read(reader, *ended);
  }
  --running_;
  changed_.notify_all();
}

void CeilingReader::begin_reads(Reader& reader, std::unique_lock<std::mutex>& lock) {
  while (!stopping_ && reader.under_way < reader.slots.size()) {
    const auto free = std::find(reader.reading.begin(), reader.reading.end(), uint64_t{0});
    const auto slot = static_cast<size_t>(free - reader.reading.begin());
    const FileExtent piece = next_piece(reader.slots[slot].size());
    *free = piece.bytes;
    ++reader.under_way;
    lock.unlock();
    reader.queue->begin({piece.file, piece.offset_bytes, reader.slots[slot].first(piece.bytes)},
                        slot);
    lock.lock();
  }
}

void CeilingReader::end_read(Reader& reader, const EndedRead& ended) {
  bytes_ += std::exchange(reader.reading[ended.token], 0);
  --reader.under_way;
  last_end_ = Clock::now();
  if (!ended.status) {
    if (!error_) error_ = ended.status.error();
    stopping_ = true;
  }
  const Clock::duration taken = last_end_ - began_;
  const bool is_enough = bytes_ >= limits_.bytes && taken >= limits_.least;
  if (is_enough || taken >= limits_.most) stopping_ = true;
}

FileExtent CeilingReader::next_piece(uint64_t most_bytes) {
  const FileExtent& extent = extents_[extent_];
  FileExtent piece{extent.file, extent.offset_bytes + offset_,
                   std::min(most_bytes, extent.bytes - offset_)};
  offset_ += piece.bytes;
  if (offset_ == extent.bytes) {
    offset_ = 0;
    extent_ = (extent_ + 1) % extents_.size();
  }
  return piece;
}

}  // namespace airllm::stream

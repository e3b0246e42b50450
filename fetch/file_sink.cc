#include "fetch/file_sink.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/units.h"
#include "fetch/disk_error.h"

namespace airllm::fetch {
namespace {

// What is hashed at once: the processor's cache holds it from the read to the hash.
constexpr uint64_t kHashBytes = 256 * kKiB;
// How much may be hashed, and how long, until it is made durable: what a machine that stops costs.
constexpr uint64_t kSyncBytes = 256 * kMiB;
constexpr auto kSyncInterval = std::chrono::seconds(10);

Result<struct stat> checked_file(int fd, const char* what) {
  struct stat info {};
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fstat(fd, &info) != 0) {
    return Unexpected(errno_error(std::string("the descriptor of the ") + what, errno));
  }
  if (S_ISREG(info.st_mode) && (flags & O_ACCMODE) == O_RDWR && (flags & O_APPEND) == 0) {
    return info;
  }
  return Unexpected(ErrorCode::kUsage,
                    std::string("the descriptor of the ") + what +
                        " is not that of a file that is open for reading and writing");
}

}  // namespace

Status check_descriptors(int data, int journal) {
  AIRLLM_TRY(const struct stat first, checked_file(data, "data"));
  AIRLLM_TRY(const struct stat second, checked_file(journal, "journal"));
  if (first.st_dev != second.st_dev || first.st_ino != second.st_ino) return {};
  return Unexpected(ErrorCode::kUsage, "the descriptors of data and journal are of one file");
}

Result<std::unique_ptr<FileSink>> FileSink::open(UniqueFd data, UniqueFd journal,
                                                 JournalSubject subject, const BootId& boot,
                                                 std::function<void()> on_news) {
  AIRLLM_TRY_VOID(check_descriptors(data.get(), journal.get()));
  struct stat info {};
  if (::fstat(data.get(), &info) != 0) return Unexpected(errno_error("the data", errno));
  subject.data_inode = info.st_ino;
  AIRLLM_TRY(Journal opened, Journal::open(std::move(journal), subject, boot));
  JournalContent content = opened.take_content();
  const auto size = static_cast<off_t>(subject.size_bytes);
  if (info.st_size != size) {
    if (info.st_size < size && info.st_size > 0 && content.checkpoint) {
      // Somebody has cut the data: what the journal tells of them is not true.
      AIRLLM_TRY_VOID(opened.reset());
      content.fresh_because = "the data are shorter than they were";
      content.checkpoint.reset();
      std::fill(content.blocks.begin(), content.blocks.end(), uint8_t{0});
      content.lanes = {};
    }
    if (::ftruncate(data.get(), size) != 0) {
      return Unexpected(disk_error("cannot set the size of the data", errno));
    }
  }
  std::unique_ptr<FileSink> sink(new FileSink(std::move(data), std::move(opened),
                                              std::move(subject), std::move(content),
                                              std::move(on_news)));
  sink->start_threads();
  return sink;
}

FileSink::FileSink(UniqueFd data, Journal journal, JournalSubject subject, JournalContent content,
                   std::function<void()> on_news)
    : data_(std::move(data)),
      journal_(std::move(journal)),
      subject_(std::move(subject)),
      on_news_(std::move(on_news)),
      fresh_because_(std::move(content.fresh_because)),
      received_before_(content.received),
      hash_(subject_.kind, subject_.size_bytes) {
  if (content.checkpoint) {
    hashed_ = *content.checkpoint;
    hash_ = StreamHash(subject_.kind, subject_.size_bytes, hashed_.prefix, hashed_.hash);
  }
  plan_ = std::make_unique<PiecePlan>(subject_.size_bytes, hashed_.prefix,
                                      std::move(content.blocks), content.lanes);
  available_ = std::max(plan_->prefix(), hashed_.prefix);
  durable_ = hashed_.prefix;
}

FileSink::~FileSink() { stop_threads(); }

void FileSink::start_threads() {
  hasher_ = std::jthread([this](const std::stop_token& stop) { hash_until_stopped(stop); });
  syncer_ = std::jthread([this](const std::stop_token& stop) { sync_until_stopped(stop); });
}

void FileSink::stop_threads() {
  hasher_.request_stop();
  syncer_.request_stop();
  if (hasher_.joinable()) hasher_.join();
  if (syncer_.joinable()) syncer_.join();
}

Error FileSink::write_error(int reason, uint64_t offset, uint64_t bytes) const {
  Error error =
      disk_error("cannot write " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                     " of " + std::to_string(subject_.size_bytes),
                 reason);
  struct statvfs info {};
  if (is_disk_full(error) && ::fstatvfs(data_.get(), &info) == 0) {
    error.message += " (" + format_size(uint64_t{info.f_bavail} * info.f_frsize) + " free, " +
                     format_size(plan_->missing()) + " of the file to come)";
  }
  return error;
}

Status FileSink::write(Piece& piece, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const uint64_t there = std::min<uint64_t>(plan_->there_at(offset), bytes.size());
    if (there > 0) {
      offset += there;
      bytes = bytes.subspan(there);
      continue;
    }
    // As far as all is missing, at once; then told block by block.
    uint64_t count = 0;
    while (count < bytes.size() && plan_->there_at(offset + count) == 0) {
      const uint64_t at = offset + count;
      count += std::min(kBlockBytes - at % kBlockBytes, bytes.size() - count);
    }
    for (uint64_t done = 0; done < count;) {
      const ssize_t put = ::pwrite(data_.get(), bytes.data() + done, count - done,
                                   static_cast<off_t>(offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        return Unexpected(write_error(put < 0 ? errno : EIO, offset + done, count - done));
      }
      done += static_cast<uint64_t>(put);
    }
    const uint64_t first = offset / kBlockBytes;
    uint64_t last = first;  // behind those that are whole now
    while (count > 0) {
      const uint64_t step = std::min(kBlockBytes - offset % kBlockBytes, count);
      if (plan_->wrote(piece, offset, step)) last = offset / kBlockBytes + 1;
      offset += step;
      count -= step;
      bytes = bytes.subspan(step);
    }
    if (last > first) AIRLLM_TRY_VOID(journal_.save_blocks(first, last, plan_->blocks()));
    AIRLLM_TRY_VOID(
        journal_.save_lane(piece.lane, plan_->lane(piece.lane), received_by_lane_[piece.lane]));
  }
  const uint64_t prefix = plan_->prefix();
  const std::lock_guard lock(mutex_);
  const bool has_more = whole_blocks(prefix) > whole_blocks(available_);
  available_ = std::max(available_, prefix);
  if (has_more) more_to_hash_.notify_one();
  return {};
}

void FileSink::count_received(size_t lane, uint64_t bytes) {
  received_by_lane_[lane] += bytes;
  received_ += bytes;
}

FileSink::Now FileSink::look() {
  has_news_ = false;
  const std::lock_guard lock(mutex_);
  return {hashed_.prefix, digest_, error_};
}

Status FileSink::restart() {
  stop_threads();
  AIRLLM_TRY_VOID(journal_.reset());
  hash_ = StreamHash(subject_.kind, subject_.size_bytes);
  plan_ = std::make_unique<PiecePlan>(subject_.size_bytes, 0, std::vector<uint8_t>(),
                                      std::array<Lane, kLanes>{});
  {
    const std::lock_guard lock(mutex_);
    available_ = 0;
    durable_ = 0;
    hashed_ = {};
    digest_.reset();
    error_.reset();
  }
  start_threads();
  return {};
}

void FileSink::fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  tell_news();
}

void FileSink::hash_until_stopped(const std::stop_token& stop) {
  for (;;) {
    uint64_t available = 0;
    {
      std::unique_lock lock(mutex_);
      const auto has_work = [&] {
        available = whole_blocks(available_);
        return available > hashed_.prefix || available == subject_.size_bytes;
      };
      if (!more_to_hash_.wait(lock, stop, has_work)) return;
    }
    while (!stop.stop_requested() && hashed_.prefix < available) {
      if (Status status = hash_some(available); !status) return fail(std::move(status.error()));
    }
    if (stop.stop_requested()) return;
    if (available == subject_.size_bytes) {
      if (Status status = finish(); !status) return fail(std::move(status.error()));
      return;
    }
  }
}

Status FileSink::hash_some(uint64_t available) {
  std::array<std::byte, kHashBytes> buffer;
  const uint64_t begin = hashed_.prefix;
  const uint64_t count = std::min(available - begin, kHashBytes);
  for (uint64_t done = 0; done < count;) {
    const ssize_t got =
        ::pread(data_.get(), buffer.data() + done, count - done, static_cast<off_t>(begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return Unexpected(
          errno_error("cannot read back what was written at " + std::to_string(begin + done),
                      got < 0 ? errno : EIO, "look at the disk's health (dmesg, smartctl)"));
    }
    done += static_cast<uint64_t>(got);
  }
  hash_.update({buffer.data(), count});
  const Checkpoint next{begin + count, hash_.save()};
  // Before anybody hears of it, and does away with the bytes.
  AIRLLM_TRY_VOID(journal_.save_live(next));
  {
    const std::lock_guard lock(mutex_);
    hashed_ = next;
    if (hashed_.prefix >= durable_ + kSyncBytes) more_to_sync_.notify_one();
  }
  tell_news();
  return {};
}

void FileSink::tell_news() {
  if (!has_news_.exchange(true)) on_news_();
}

uint64_t FileSink::whole_blocks(uint64_t prefix) const {
  return prefix == subject_.size_bytes ? prefix : round_down(prefix, kBlockBytes);
}

// All is hashed. The file is whole when it is also on the disk.
Status FileSink::finish() {
  const std::string digest = hash_.digest();
  if (digest == subject_.digest) {
    if (::fdatasync(data_.get()) != 0) {
      return Unexpected(disk_error("cannot sync the data", errno));
    }
    AIRLLM_TRY_VOID(journal_.save_durable(hashed_));
  }
  {
    const std::lock_guard lock(mutex_);
    digest_ = digest;
  }
  tell_news();
  return {};
}

void FileSink::sync_until_stopped(const std::stop_token& stop) {
  for (;;) {
    Checkpoint next;
    {
      std::unique_lock lock(mutex_);
      more_to_sync_.wait_for(lock, stop, kSyncInterval,
                             [&] { return hashed_.prefix >= durable_ + kSyncBytes; });
      if (stop.stop_requested()) return;
      if (hashed_.prefix == durable_) continue;
      next = hashed_;
    }
    if (::fdatasync(data_.get()) != 0) return fail(disk_error("cannot sync the data", errno));
    if (Status status = journal_.save_durable(next); !status) {
      return fail(std::move(status.error()));
    }
    const std::lock_guard lock(mutex_);
    durable_ = next.prefix;
  }
}

}  // namespace airllm::fetch

// Where a file goes: its data, its journal, and the thread that hashes what has come.
//
// The loop's thread writes; a thread of the file's own reads back what lies behind the hashed
// prefix (from the page cache, mostly) and hashes it; another one makes the prefix durable now and
// then, so that neither waits for the disk. What was hashed is never read again: it may be gone.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/unique_fd.h"
#include "fetch/journal.h"
#include "fetch/piece_plan.h"
#include "fetch/stream_hash.h"

namespace airllm::fetch {

// The rules for descriptors: regular files, open for reading and writing, not for appending, and
// two different ones.
Status check_descriptors(int data, int journal);

// The public functions belong to one thread, the loop's.
class FileSink {
 public:
  // `subject` but for the inode, which is that of `data`. `on_news` is called from other threads
  // when look() has something new to tell. kUsage for descriptors that do not fit, kIo when they
  // cannot be used.
  static Result<std::unique_ptr<FileSink>> open(UniqueFd data, UniqueFd journal,
                                                JournalSubject subject, const BootId& boot,
                                                std::function<void()> on_news);
  ~FileSink();

  PiecePlan& plan() { return *plan_; }
  const PiecePlan& plan() const { return *plan_; }
  // Why an older journal was of no use; empty when it was, or there was none.
  const std::string& fresh_because() const { return fresh_because_; }

  // Writes those of the bytes from `offset` on that are missing. Each of them is in the file, and
  // the journal says so, when this returns. Errors: see write_error().
  Status write(Piece& piece, uint64_t offset, std::span<const std::byte> bytes);

  // Bytes that came from the network for this file: of this run through `lane`, and in all.
  void count_received(size_t lane, uint64_t bytes);
  uint64_t received() const { return received_before_ + received_; }

  struct Now {
    uint64_t hashed = 0;                // the prefix: whole blocks, or all
    std::optional<std::string> digest;  // of the whole file, when all is hashed and on the disk
    std::optional<Error> error;         // reading back or syncing failed
  };
  Now look();

  // The file begins anew: nothing of it is trusted any more.
  Status restart();

 private:
  FileSink(UniqueFd data, Journal journal, JournalSubject subject, JournalContent content,
           std::function<void()> on_news);

  void start_threads();
  void stop_threads();
  void hash_until_stopped(const std::stop_token& stop);
  Status hash_some(uint64_t available);
  Status finish();
  void sync_until_stopped(const std::stop_token& stop);
  void fail(Error error);
  void tell_news();
  // As much of the prefix as is hashed: whole blocks, or all.
  uint64_t whole_blocks(uint64_t prefix) const;
  Error write_error(int reason, uint64_t offset, uint64_t bytes) const;

  UniqueFd data_;
  Journal journal_;
  const JournalSubject subject_;
  const std::function<void()> on_news_;
  std::string fresh_because_;
  uint64_t received_before_ = 0;
  uint64_t received_ = 0;
  std::array<uint64_t, kLanes> received_by_lane_{};
  std::unique_ptr<PiecePlan> plan_;

  StreamHash hash_;  // of the hashing thread

  std::atomic<bool> has_news_ = false;  // since the last look()

  std::mutex mutex_;
  std::condition_variable_any more_to_hash_;
  std::condition_variable_any more_to_sync_;
  uint64_t available_ = 0;  // the prefix that is written
  uint64_t durable_ = 0;    // the one that was synced last
  Checkpoint hashed_;
  std::optional<std::string> digest_;
  std::optional<Error> error_;

  std::jthread hasher_;
  std::jthread syncer_;
};

}  // namespace airllm::fetch

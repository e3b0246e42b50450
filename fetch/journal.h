// The journal of a download: all that is needed to go on with it, in a small file beside the data.
// docs/fetch.md has its layout.
//
// What it says must be true after a SIGKILL at any point: each write is one pwrite(), made after
// what it tells has happened, of bytes that lie in one page or are true each by itself, and the
// page cache outlives the process. (Not a shared mapping: a full disk or a file that somebody cut
// would be a signal there, and is an error here.) After the machine itself stopped, only what was
// made durable counts: another boot.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "fetch/stream_hash.h"

namespace airllm::fetch {

// What is fetched is marked as there in blocks of this size.
inline constexpr uint64_t kBlockBytes = uint64_t{64} << 10;
// Places where a block may be in the making; more than there are connections.
inline constexpr size_t kLanes = 64;
// The largest file; the hub's limit is far below. Bounds the journal, 8 MiB.
inline constexpr uint64_t kMaxFileBytes = uint64_t{1} << 42;

inline constexpr uint64_t blocks_of(uint64_t size_bytes) {
  return (size_bytes + kBlockBytes - 1) / kBlockBytes;
}

// What a journal is about. One of another file is of no use.
struct JournalSubject {
  uint64_t size_bytes = 0;
  HashKind kind = HashKind::kSha256;
  std::string digest;       // hexadecimal, as expected
  uint64_t data_inode = 0;  // of the file that the data lie in
};

using BootId = std::array<std::byte, 16>;
// Of the running kernel; random where it cannot be read, and so never the same.
BootId current_boot_id();

// The beginning of a block that is not whole: its first `bytes` are there.
struct Lane {
  uint64_t block = 0;
  uint32_t bytes = 0;  // 0: none
};

// A prefix of the file and the state of its hash there.
struct Checkpoint {
  uint64_t prefix = 0;
  HashState hash;
};

// What a journal says when it is opened.
struct JournalContent {
  std::optional<Checkpoint> checkpoint;  // none: nothing is hashed
  std::vector<uint8_t> blocks;           // a bit for each block that is there, lowest bit first
  std::array<Lane, kLanes> lanes{};
  uint64_t received = 0;      // bytes from the network, over all runs
  std::string fresh_because;  // why it begins anew, when it held something; else empty
};

// save_live() and save_durable() may be called from two threads beside the one that calls the rest.
class Journal {
 public:
  // Opens the journal in `fd`, makes it one of `subject` and of this boot, and tells what it holds.
  // What is malformed, of another subject, or of another boot and not durable counts as not there.
  // kIo when it cannot be read or written.
  static Result<Journal> open(UniqueFd fd, const JournalSubject& subject, const BootId& boot);

  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;

  // What it held when it was opened; to be called once.
  JournalContent take_content() { return std::move(content_); }

  // Writes the bytes of the bits that have the blocks [first, last) in them.
  Status save_blocks(uint64_t first, uint64_t last, std::span<const uint8_t> blocks);
  // Says how far `lane` is, and what came from the network through it since the journal was opened.
  Status save_lane(size_t lane, const Lane& state, uint64_t received);
  // `checkpoint` is hashed, and its bytes are written.
  Status save_live(const Checkpoint& checkpoint);
  // And they are on the disk. Waits for the disk.
  Status save_durable(const Checkpoint& checkpoint);
  // Everything begins anew; but `received` is kept. No other call may be under way.
  Status reset();

 private:
  // Two places that are written in turns: one of them is whole whenever the machine stops.
  struct Pair {
    uint64_t offset;
    uint64_t sequence = 0;
    std::mutex mutex;
  };

  Journal(UniqueFd fd, const JournalSubject& subject, const BootId& boot);
  Status load();
  Status begin(const std::optional<Checkpoint>& checkpoint);
  std::optional<Checkpoint> read_pair(Pair& pair, std::span<const std::byte> file) const;
  Status save(Pair& pair, const Checkpoint& checkpoint);
  Status write(uint64_t offset, std::span<const std::byte> bytes);
  Status sync();
  std::array<std::byte, 128> header() const;

  UniqueFd fd_;
  JournalSubject subject_;
  BootId boot_;
  JournalContent content_;
  std::array<uint64_t, kLanes> received_before_{};
  Pair live_;
  Pair durable_;
};

}  // namespace airllm::fetch

// The replaceable disk: everything that the store reads and writes goes through here, so that tests
// can inject short reads, EIO, ENOSPC and a crash between any two writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/store/io_buffer.h"

namespace airllm::store {

// An open file. Reads may come from many threads at once; writes from one.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  // Fills `out` from `offset_bytes`. The file's end before that is a kData error ("truncated"),
  // other trouble kIo; messages name the file and the offset. Retries EINTR and short reads.
  virtual Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const = 0;
  // The same for much that is wanted once: what the page cache has comes from there, the rest past
  // it where the file system allows that. Returns where in `buffer` it lies. One thread at a time,
  // and no other reads the file meanwhile.
  virtual Result<std::span<std::byte>> read_bulk(uint64_t offset_bytes, uint64_t bytes,
                                                 IoBuffer& buffer) const;
  virtual Status write_at(uint64_t offset_bytes, std::span<const std::byte> data) = 0;
  virtual Status sync() = 0;
  virtual Result<uint64_t> size_bytes() const = 0;
  // file_identity() (base/file_identity.h), to see whether a file is still the same one.
  virtual Result<std::string> identity() const = 0;
  virtual const std::string& path() const = 0;
  // Whether read_at bypasses the page cache (O_DIRECT); then offset, length and memory must be
  // multiples of 4096, and a read may end at the end of the file.
  virtual bool is_direct() const = 0;
  // For reading by other calls of the system; -1 where only read_at() works.
  virtual int descriptor() const { return -1; }
};

enum class OpenMode {
  kRead,        // buffered
  kReadDirect,  // O_DIRECT where the file system allows it, else buffered
  kCreate,      // for writing; an existing file is emptied
  // The same; what is written in whole pages, from memory on a page boundary, goes past the page
  // cache where the file system allows it.
  kCreateDirect,
  kResume,  // for writing; an existing file is kept
};

struct DirEntry {
  std::string name;
  bool is_directory = false;
};

// Held until it is destroyed, or its process ends.
class DiskLock {
 public:
  virtual ~DiskLock() = default;
};

class Disk {
 public:
  virtual ~Disk() = default;
  virtual Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) = 0;
  // Takes over a descriptor that came over the socket; `label` stands for its path in messages.
  // What is not a regular file is refused (kNoInput).
  // `mode` is kRead or kReadDirect; the latter changes the descriptor's flags, and so those of all
  // that share it.
  virtual Result<std::unique_ptr<DiskFile>> adopt(UniqueFd fd, const std::string& label,
                                                  OpenMode mode) = 0;
  // Sorted by name, without "." and "..". Symbolic links count as files.
  virtual Result<std::vector<DirEntry>> list(const std::string& directory) = 0;
  virtual bool exists(const std::string& path) = 0;
  // With all parents, for the owner alone (0700), and synced; one that exists is fine.
  virtual Status make_directories(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status remove_file(const std::string& path) = 0;
  // With all that is below it, following no links; one that does not exist is fine.
  virtual Status remove_tree(const std::string& path) = 0;
  virtual Status sync_directory(const std::string& path) = 0;
  virtual Result<uint64_t> free_bytes(const std::string& path) = 0;
  // Of the whole file system that `path` lies on.
  virtual Result<uint64_t> total_bytes(const std::string& path) = 0;
  // Takes the lock that the file at `path` stands for and writes this process's id into it. Another
  // holder is a kTemporary error that names its id.
  virtual Result<std::unique_ptr<DiskLock>> lock(const std::string& path) = 0;
};

// The operating system's. Lives for ever.
Disk& system_disk();
// The same, but kReadDirect is as kRead: everything goes through the page cache.
Disk& buffered_disk();

// `bytes` bytes from `offset_bytes` on.
Result<std::string> read_bytes(const DiskFile& file, uint64_t offset_bytes, uint64_t bytes);
// The whole of a small file; longer than `limit_bytes` is a kData error.
Result<std::string> read_text(const DiskFile& file, uint64_t limit_bytes);

// What the files below the folder hold together; 0 when it is not there.
Result<uint64_t> tree_bytes(Disk& disk, const std::string& path);

// Replaces the file at `path` by `text` so that a crash leaves the old or the new content.
Status write_text_atomically(Disk& disk, const std::string& path, std::string_view text);

}  // namespace airllm::store

// A disk in memory that fails as real ones do: errors, a full disk, and a crash between any two
// operations, after which a test sees what a machine would find when it starts again.
//
// What survives a crash: of a file, what was synced, and any sectors of what was written since; of
// each folder's names, those from before it was synced, and of the changes after that the first
// few, independently of other folders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/store/disk.h"

namespace airllm::store {

class MemoryDisk : public Disk {
 public:
  MemoryDisk();
  ~MemoryDisk() override;

  // Operations that change something: creating, writing, syncing, renaming, removing.
  uint64_t operations() const { return operations_; }
  uint64_t bytes_written() const { return bytes_written_; }

  // The next `count` operations succeed; everything after them fails until reboot().
  void crash_after(uint64_t count) { crash_at_ = operations_ + count; }
  // The next `count` operations succeed; the one after them fails with `error` (an errno), once.
  void fail_after(uint64_t count, int error);
  // The next `count` reads of adopted files succeed; the one after them fails with EIO.
  void fail_source_read_after(uint64_t count) { source_reads_left_ = count; }
  // Writing beyond so many bytes in all files fails with ENOSPC. free_bytes() tells the rest, or
  // what `pretended_free` says.
  void set_capacity(uint64_t bytes, std::optional<uint64_t> pretended_free = std::nullopt);
  // As after a crash and a new start, even without crash_after(). Open files must not be used any
  // more.
  void reboot(uint64_t seed);
  // Changes the file's content at once, on the platter too.
  void flip_bit(const std::string& path, uint64_t offset_bytes, unsigned bit);
  void truncate(const std::string& path, uint64_t bytes);
  // All files below `folder` with their contents, by path relative to it.
  std::map<std::string, std::string> files_below(const std::string& folder) const;

  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override;
  Result<std::unique_ptr<DiskFile>> adopt(UniqueFd fd, const std::string& label,
                                          OpenMode mode) override;
  Result<std::vector<DirEntry>> list(const std::string& directory) override;
  bool exists(const std::string& path) override;
  Status make_directories(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove_file(const std::string& path) override;
  Status remove_tree(const std::string& path) override;
  Status sync_directory(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) override;
  Result<uint64_t> total_bytes(const std::string& path) override;
  Result<std::unique_ptr<DiskLock>> lock(const std::string& path) override;

 private:
  friend class MemoryFile;
  friend class SourceFile;
  struct Inode {
    std::string now, safe;  // contents as read, and as they are on the platter
  };
  // A path to its inode; a folder has none.
  using Tree = std::map<std::string, std::shared_ptr<Inode>>;
  struct Change {
    enum class Kind { kAdd, kRename, kRemove };
    Kind kind;
    std::string path, to;
    std::shared_ptr<Inode> inode;
  };

  // Counts an operation on `path`; an error when it must fail.
  Status begin(const std::string& path);
  Status change(Change change);
  static void apply(Tree& tree, const Change& change);
  // Puts the chosen changes of pending_ (by index) on the platter.
  void commit(const std::vector<bool>& chosen);
  static std::shared_ptr<Inode> survivor(const Inode& inode, std::mt19937_64& random);
  uint64_t used_bytes() const;

  // A split reads, writes and syncs from several threads.
  std::recursive_mutex mutex_;
  Tree now_, safe_;              // safe_ may hold names whose folder is not safe yet
  std::vector<Change> pending_;  // in now_ but not yet in safe_
  std::map<std::string, bool> locks_;
  uint64_t operations_ = 0;
  uint64_t bytes_written_ = 0;
  std::optional<uint64_t> crash_at_, fail_at_, source_reads_left_, pretended_free_;
  int fail_error_ = 0;
  uint64_t capacity_ = uint64_t{1} << 40;
};

}  // namespace airllm::store

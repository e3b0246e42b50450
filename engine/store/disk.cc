// The operating system's disk.
#include "engine/store/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/checked.h"
#include "base/file_identity.h"
#include "base/units.h"

namespace airllm::store {
namespace {

constexpr mode_t kDirectoryMode = 0700;
constexpr mode_t kFileMode = 0644;

Unexpected system_error(const std::string& what, int error) {
  return Unexpected(errno_error(what, error));
}

// Whether reads and writes go past the page cache from now on.
bool set_direct(int fd, bool direct) {
  const int flags = ::fcntl(fd, F_GETFL);
  const int wanted = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
  return flags >= 0 && (wanted == flags || ::fcntl(fd, F_SETFL, wanted) == 0);
}

// While it lives, the descriptor reads and writes past the page cache.
class DirectScope {
 public:
  explicit DirectScope(int fd) : fd_(fd), is_direct_(set_direct(fd, true)) {}
  ~DirectScope() { set_direct(fd_, false); }
  DirectScope(const DirectScope&) = delete;
  DirectScope& operator=(const DirectScope&) = delete;

  explicit operator bool() const { return is_direct_; }

 private:
  int fd_;
  bool is_direct_;
};

// Whether the page cache has all of the file's bytes there. Linux 6.5 and later tell; trying with
// RWF_NOWAIT would have the kernel read ahead.
bool is_cached(int fd, uint64_t offset_bytes, uint64_t bytes) {
  constexpr long kCachestat = 451;  // on every processor; Debian 12 has no name for it
  const struct { uint64_t offset, bytes; } range{offset_bytes, bytes};
  struct {
    uint64_t cached, dirty, written_back, evicted, recently_evicted;
  } pages{};
  if (::syscall(kCachestat, fd, &range, &pages, 0) != 0) return false;
  const uint64_t first = offset_bytes / kPageBytes;
  return pages.cached >= (offset_bytes + bytes - 1) / kPageBytes - first + 1;
}

// Reads whole pages until `out` is full, the file ends, or there is trouble; returns how much that
// is.
uint64_t read_direct(int fd, uint64_t offset_bytes, std::span<std::byte> out) {
  uint64_t got = 0;
  while (got < out.size()) {
    const ssize_t n =
        ::pread(fd, out.data() + got, out.size() - got, static_cast<off_t>(offset_bytes + got));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += static_cast<uint64_t>(n);
    if (got % kPageBytes != 0) break;  // the end of the file; going on would be misaligned
  }
  return got;
}

class SystemFile : public DiskFile {
 public:
  SystemFile(UniqueFd fd, std::string path, bool direct, bool may_bypass_cache)
      : fd_(std::move(fd)),
        path_(std::move(path)),
        direct_(direct),
        may_bypass_cache_(may_bypass_cache) {}

  Result<std::span<std::byte>> read_bulk(uint64_t offset_bytes, uint64_t bytes,
                                         IoBuffer& buffer) const override {
    const uint64_t lead = offset_bytes % kPageBytes;
    AIRLLM_TRY(const std::span<std::byte> memory,
               buffer.reserve(round_up(lead + bytes, kPageBytes)));
    const std::span<std::byte> out = memory.subspan(lead, bytes);
    uint64_t got = 0;
    const bool is_worth_it = may_bypass_cache_ && bytes >= kLeastBulkBytes;
    if (is_worth_it && !is_cached(fd_.get(), offset_bytes, bytes)) {
      if (const DirectScope direct(fd_.get()); direct) {
        const uint64_t read = read_direct(fd_.get(), offset_bytes - lead,
                                          memory.first(round_up(lead + bytes, kPageBytes)));
        got = std::clamp(read, lead, lead + bytes) - lead;
      }
    }
    // What is still wanting, or what is wrong with it.
    if (got < bytes) AIRLLM_TRY_VOID(read_at(offset_bytes + got, out.subspan(got)));
    return out;
  }

  Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const override {
    size_t got = 0;
    while (got < out.size()) {
      const ssize_t n = ::pread(fd_.get(), out.data() + got, out.size() - got,
                                static_cast<off_t>(offset_bytes + got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        return system_error(path_ + ": reading at offset " + std::to_string(offset_bytes + got),
                            errno);
      }
      got += static_cast<size_t>(n);
      if (n == 0) return at_end(offset_bytes, out.size(), got);
      // A direct read that is not whole pages has reached the end; going on would be misaligned.
      if (direct_ && got % kPageBytes != 0) return at_end(offset_bytes, out.size(), got);
    }
    return {};
  }

  Status write_at(uint64_t offset_bytes, std::span<const std::byte> data) override {
    if (direct_ && !is_whole_pages(offset_bytes, data)) {
      set_direct(fd_.get(), false);
      const Status status = write_all(offset_bytes, data);
      set_direct(fd_.get(), true);
      return status;
    }
    return write_all(offset_bytes, data);
  }

  Status sync() override {
    if (::fsync(fd_.get()) != 0) return system_error(path_ + ": writing to the disk", errno);
    return {};
  }

  Result<uint64_t> size_bytes() const override {
    struct stat info {};
    if (::fstat(fd_.get(), &info) != 0) return system_error(path_, errno);
    return static_cast<uint64_t>(info.st_size);
  }

  Result<std::string> identity() const override {
    struct stat info {};
    if (::fstat(fd_.get(), &info) != 0) return system_error(path_, errno);
    return file_identity(info);
  }

  const std::string& path() const override { return path_; }
  bool is_direct() const override { return direct_; }
  int descriptor() const override { return fd_.get(); }

 private:
  static bool is_whole_pages(uint64_t offset_bytes, std::span<const std::byte> data) {
    return (offset_bytes | data.size() | reinterpret_cast<uintptr_t>(data.data())) % kPageBytes ==
           0;
  }

  Status write_all(uint64_t offset_bytes, std::span<const std::byte> data) {
    size_t put = 0;
    while (put < data.size()) {
      const ssize_t n = ::pwrite(fd_.get(), data.data() + put, data.size() - put,
                                 static_cast<off_t>(offset_bytes + put));
      if (n < 0 && errno == EINTR) continue;
      // Some file systems take O_DIRECT and then refuse to write with it.
      if (n < 0 && errno == EINVAL && direct_) {
        direct_ = !set_direct(fd_.get(), false);
        if (!direct_) continue;
      }
      if (n < 0) {
        return system_error(path_ + ": writing at offset " + std::to_string(offset_bytes + put),
                            errno);
      }
      put += static_cast<size_t>(n);
    }
    return {};
  }

  Status at_end(uint64_t offset_bytes, size_t wanted, size_t got) const {
    if (direct_ && got > 0 && wanted - got < kPageBytes) return {};
    return Unexpected(ErrorCode::kData, path_ + ": truncated: it ends at byte " +
                                            std::to_string(offset_bytes + got) +
                                            ", but bytes up to " +
                                            std::to_string(offset_bytes + wanted) + " are needed");
  }

  // Below this a disk is no faster past the page cache, which may read ahead.
  static constexpr uint64_t kLeastBulkBytes = 256 * kKiB;

  UniqueFd fd_;
  std::string path_;
  bool direct_;
  bool may_bypass_cache_;
};

class SystemLock : public DiskLock {
 public:
  explicit SystemLock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  UniqueFd fd_;
};

// Some file systems take O_DIRECT and then refuse every read with it.
bool direct_read_works(int fd) {
  void* page = std::aligned_alloc(kPageBytes, kPageBytes);
  if (page == nullptr) return false;
  const bool works = ::pread(fd, page, kPageBytes, 0) >= 0;
  std::free(page);
  return works;
}

// Whether the descriptor now reads past the page cache.
bool make_direct(int fd) {
  if (!set_direct(fd, true)) return false;
  if (direct_read_works(fd)) return true;
  set_direct(fd, false);
  return false;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

int open_flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead: return O_RDONLY;
    case OpenMode::kReadDirect: return O_RDONLY | O_DIRECT;
    case OpenMode::kCreate: return O_RDWR | O_CREAT | O_TRUNC;
    case OpenMode::kCreateDirect: return O_RDWR | O_CREAT | O_TRUNC | O_DIRECT;
    case OpenMode::kResume: return O_RDWR | O_CREAT;
  }
  return O_RDONLY;
}

// A named pipe in place of a file must not hold up the thread. Reads and writes of a regular file
// behave as always.
UniqueFd open_without_waiting(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), flags | O_NONBLOCK, kFileMode));
  if (fd.valid()) ::fcntl(fd.get(), F_SETFL, flags & O_DIRECT);
  return fd;
}

// The id that a lock's holder wrote, or "unknown" while it has not yet.
std::string read_holder(int fd) {
  char text[32] = {};
  const ssize_t n = ::pread(fd, text, sizeof text - 1, 0);
  const long pid = n > 0 ? std::strtol(text, nullptr, 10) : 0;
  return pid > 0 ? std::to_string(pid) : "unknown";
}

Result<DirEntry> make_entry(int directory, const dirent& entry) {
  bool is_directory = entry.d_type == DT_DIR;
  if (entry.d_type == DT_UNKNOWN) {
    struct stat info {};
    if (::fstatat(directory, entry.d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return system_error(entry.d_name, errno);
    }
    is_directory = S_ISDIR(info.st_mode);
  }
  return DirEntry{entry.d_name, is_directory};
}

Result<struct statvfs> file_system_of(const std::string& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) return system_error(path, errno);
  return info;
}

class SystemDisk : public Disk {
 public:
  explicit SystemDisk(bool may_bypass_cache) : may_bypass_cache_(may_bypass_cache) {}

  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override {
    if (mode == OpenMode::kReadDirect && !may_bypass_cache_) mode = OpenMode::kRead;
    if (mode == OpenMode::kCreateDirect && !may_bypass_cache_) mode = OpenMode::kCreate;
    int flags = open_flags(mode) | O_CLOEXEC;
    UniqueFd fd = open_without_waiting(path, flags);
    const bool is_refused = fd.valid()
                                ? mode == OpenMode::kReadDirect && !direct_read_works(fd.get())
                                : errno == EINVAL;
    if ((flags & O_DIRECT) != 0 && is_refused) {
      flags &= ~O_DIRECT;
      fd = open_without_waiting(path, flags);
    }
    if (!fd.valid()) return system_error(path, errno);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return system_error(path, errno);
    if (!S_ISREG(info.st_mode)) {
      return Unexpected(ErrorCode::kNoInput, path + ": not a regular file");
    }
    return std::unique_ptr<DiskFile>(std::make_unique<SystemFile>(
        std::move(fd), path, (flags & O_DIRECT) != 0, may_bypass_cache_));
  }

  Result<std::unique_ptr<DiskFile>> adopt(UniqueFd fd, const std::string& label,
                                          OpenMode mode) override {
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return system_error(label, errno);
    if (!S_ISREG(info.st_mode)) {
      return Unexpected(ErrorCode::kNoInput, label + ": not a regular file");
    }
    const bool direct = may_bypass_cache_ && mode == OpenMode::kReadDirect && make_direct(fd.get());
    return std::unique_ptr<DiskFile>(
        std::make_unique<SystemFile>(std::move(fd), label, direct, may_bypass_cache_));
  }

  Result<std::vector<DirEntry>> list(const std::string& directory) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory.c_str()), &::closedir);
    if (!dir) return system_error(directory, errno);
    std::vector<DirEntry> out;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(dir.get());  // NOLINT(concurrency-mt-unsafe)
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      AIRLLM_TRY(DirEntry made, make_entry(::dirfd(dir.get()), *entry));
      out.push_back(std::move(made));
    }
    if (errno != 0) return system_error(directory, errno);
    std::sort(out.begin(), out.end(),
              [](const DirEntry& a, const DirEntry& b) { return a.name < b.name; });
    return out;
  }

  bool exists(const std::string& path) override {
    struct stat info {};
    return ::lstat(path.c_str(), &info) == 0;
  }

  Status make_directories(const std::string& path) override {
    for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      const std::string part = path.substr(0, end);
      if (::mkdir(part.c_str(), kDirectoryMode) == 0) {
        AIRLLM_TRY_VOID(sync_directory(parent_of(part)));
      } else if (errno != EEXIST) {
        return system_error(part + ": making this folder", errno);
      }
      if (end == std::string::npos) break;
    }
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return system_error(path, errno);
    if (!S_ISDIR(info.st_mode)) return system_error(path, ENOTDIR);
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return system_error(from + ": renaming to " + to, errno);
    }
    return {};
  }

  Status remove_file(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return system_error(path + ": removing", errno);
    return {};
  }

  Status remove_tree(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) return system_error(path + ": removing", error.value());
    return {};
  }

  Status sync_directory(const std::string& path) override {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid() || ::fsync(fd.get()) != 0) return system_error(path, errno);
    return {};
  }

  Result<uint64_t> free_bytes(const std::string& path) override {
    AIRLLM_TRY(const struct statvfs info, file_system_of(path));
    return static_cast<uint64_t>(info.f_bavail) * static_cast<uint64_t>(info.f_frsize);
  }

  Result<uint64_t> total_bytes(const std::string& path) override {
    AIRLLM_TRY(const struct statvfs info, file_system_of(path));
    return static_cast<uint64_t>(info.f_blocks) * static_cast<uint64_t>(info.f_frsize);
  }

  Result<std::unique_ptr<DiskLock>> lock(const std::string& path) override {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd.valid()) return system_error(path, errno);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return system_error(path + ": locking", errno);
      return Unexpected(ErrorCode::kTemporary, path + ": held by process " + read_holder(fd.get()));
    }
    const std::string pid = std::to_string(::getpid()) + "\n";
    if (::ftruncate(fd.get(), 0) != 0 ||
        ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
      return system_error(path + ": writing", errno);
    }
    return std::unique_ptr<DiskLock>(std::make_unique<SystemLock>(std::move(fd)));
  }

 private:
  bool may_bypass_cache_;
};

}  // namespace

Result<std::span<std::byte>> DiskFile::read_bulk(uint64_t offset_bytes, uint64_t bytes,
                                                 IoBuffer& buffer) const {
  AIRLLM_TRY(const std::span<std::byte> memory, buffer.reserve(bytes));
  AIRLLM_TRY_VOID(read_at(offset_bytes, memory.first(bytes)));
  return memory.first(bytes);
}

Disk& system_disk() {
  static SystemDisk disk(true);
  return disk;
}

Disk& buffered_disk() {
  static SystemDisk disk(false);
  return disk;
}

namespace {

// One that was removed meanwhile has none.
Result<uint64_t> file_bytes(Disk& disk, const std::string& path) {
  const Result<std::unique_ptr<DiskFile>> file = disk.open(path, OpenMode::kRead);
  if (file) return (*file)->size_bytes();
  if (!disk.exists(path)) return uint64_t{0};
  return Unexpected(file.error());
}

}  // namespace

Result<std::string> read_bytes(const DiskFile& file, uint64_t offset_bytes, uint64_t bytes) {
  std::string out(bytes, '\0');
  AIRLLM_TRY_VOID(file.read_at(offset_bytes, std::as_writable_bytes(std::span(out))));
  return out;
}

Result<std::string> read_text(const DiskFile& file, uint64_t limit_bytes) {
  AIRLLM_TRY(const uint64_t size, file.size_bytes());
  if (size > limit_bytes) {
    return Unexpected(ErrorCode::kData, file.path() + ": " + format_size(size) +
                                            " long, but at most " + format_size(limit_bytes) +
                                            " is allowed here");
  }
  return read_bytes(file, 0, size);
}

Result<uint64_t> tree_bytes(Disk& disk, const std::string& path) {
  if (!disk.exists(path)) return uint64_t{0};
  AIRLLM_TRY(const std::vector<DirEntry> entries, disk.list(path));
  uint64_t sum = 0;
  for (const DirEntry& entry : entries) {
    const std::string below = path + "/" + entry.name;
    AIRLLM_TRY(const uint64_t bytes,
               entry.is_directory ? tree_bytes(disk, below) : file_bytes(disk, below));
    sum += bytes;
  }
  return sum;
}

Status write_text_atomically(Disk& disk, const std::string& path, std::string_view text) {
  const std::string temporary = path + ".tmp";
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(temporary, OpenMode::kCreate));
  AIRLLM_TRY_VOID(file->write_at(0, std::as_bytes(std::span(text))));
  AIRLLM_TRY_VOID(file->sync());
  AIRLLM_TRY_VOID(disk.rename(temporary, path));
  return disk.sync_directory(parent_of(path));
}

}  // namespace airllm::store

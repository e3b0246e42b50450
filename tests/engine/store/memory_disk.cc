#include "tests/engine/store/memory_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace airllm::store {
namespace {

constexpr size_t kSectorBytes = 512;  // what a disk writes whole or not at all

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 || slash == path.npos ? "/" : path.substr(0, slash);
}

bool is_below(const std::string& path, const std::string& folder) {
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

class FreeLock : public DiskLock {
 public:
  explicit FreeLock(bool& held) : held_(held) { held_ = true; }
  ~FreeLock() override { held_ = false; }

 private:
  bool& held_;
};

}  // namespace

class MemoryFile : public DiskFile {
 public:
  MemoryFile(MemoryDisk& disk, std::string path, std::shared_ptr<MemoryDisk::Inode> inode)
      : disk_(disk), path_(std::move(path)), inode_(std::move(inode)) {}

  Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const override {
    const std::lock_guard guard(disk_.mutex_);
    if (offset_bytes + out.size() > inode_->now.size()) {
      return Unexpected(ErrorCode::kData, path_ + ": truncated");
    }
    if (!out.empty()) std::memcpy(out.data(), inode_->now.data() + offset_bytes, out.size());
    return {};
  }
  Status write_at(uint64_t offset_bytes, std::span<const std::byte> data) override {
    const std::lock_guard guard(disk_.mutex_);
    AIRLLM_TRY_VOID(disk_.begin(path_));
    const uint64_t end = offset_bytes + data.size();
    const uint64_t growth = end > inode_->now.size() ? end - inode_->now.size() : 0;
    if (disk_.used_bytes() + growth > disk_.capacity_) {
      return Unexpected(errno_error(path_, ENOSPC));
    }
    if (growth > 0) inode_->now.resize(end);
    if (!data.empty()) std::memcpy(inode_->now.data() + offset_bytes, data.data(), data.size());
    disk_.bytes_written_ += data.size();
    return {};
  }
  Status sync() override {
    const std::lock_guard guard(disk_.mutex_);
    AIRLLM_TRY_VOID(disk_.begin(path_));
    inode_->safe = inode_->now;
    return {};
  }
  Result<uint64_t> size_bytes() const override { return uint64_t{inode_->now.size()}; }
  Result<std::string> identity() const override { return path_; }
  const std::string& path() const override { return path_; }
  bool is_direct() const override { return false; }

 private:
  MemoryDisk& disk_;
  std::string path_;
  std::shared_ptr<MemoryDisk::Inode> inode_;
};

// A real file that can be told to fail.
class SourceFile : public DiskFile {
 public:
  SourceFile(MemoryDisk& disk, std::unique_ptr<DiskFile> real)
      : disk_(disk), real_(std::move(real)) {}
  Status read_at(uint64_t offset_bytes, std::span<std::byte> out) const override {
    const std::lock_guard guard(disk_.mutex_);
    if (disk_.source_reads_left_ && (*disk_.source_reads_left_)-- == 0) {
      disk_.source_reads_left_.reset();
      return Unexpected(errno_error(path() + ": offset " + std::to_string(offset_bytes), EIO));
    }
    return real_->read_at(offset_bytes, out);
  }
  Status write_at(uint64_t, std::span<const std::byte>) override {
    return Unexpected(errno_error(path(), EBADF));
  }
  Status sync() override { return real_->sync(); }
  Result<uint64_t> size_bytes() const override { return real_->size_bytes(); }
  Result<std::string> identity() const override { return real_->identity(); }
  const std::string& path() const override { return real_->path(); }
  bool is_direct() const override { return false; }

 private:
  MemoryDisk& disk_;
  std::unique_ptr<DiskFile> real_;
};

MemoryDisk::MemoryDisk() {
  now_["/"] = nullptr;
  safe_ = now_;
}
MemoryDisk::~MemoryDisk() = default;

void MemoryDisk::fail_after(uint64_t count, int error) {
  fail_at_ = operations_ + count;
  fail_error_ = error;
}

void MemoryDisk::set_capacity(uint64_t bytes, std::optional<uint64_t> pretended_free) {
  capacity_ = bytes;
  pretended_free_ = pretended_free;
}

Status MemoryDisk::begin(const std::string& path) {
  if (crash_at_ && operations_ >= *crash_at_) {
    return Unexpected(ErrorCode::kIo, path + ": the machine has crashed");
  }
  const bool fails = fail_at_ && operations_ == *fail_at_;
  ++operations_;
  if (!fails) return {};
  fail_at_.reset();
  return Unexpected(errno_error(path, fail_error_));
}

void MemoryDisk::apply(Tree& tree, const Change& change) {
  if (change.kind == Change::Kind::kAdd) tree[change.path] = change.inode;
  if (change.kind == Change::Kind::kRemove) tree.erase(change.path);
  if (change.kind != Change::Kind::kRename) return;
  Tree moved;
  for (auto at = tree.begin(); at != tree.end();) {
    if (at->first == change.path || is_below(at->first, change.path)) {
      moved[change.to + at->first.substr(change.path.size())] = at->second;
      at = tree.erase(at);
    } else {
      ++at;
    }
  }
  for (auto& [path, inode] : moved) tree[path] = inode;
}

Status MemoryDisk::change(Change change) {
  AIRLLM_TRY_VOID(begin(change.path));
  apply(now_, change);
  pending_.push_back(std::move(change));
  return {};
}

// Each sector has the synced or the new content, and the length is between the two.
std::shared_ptr<MemoryDisk::Inode> MemoryDisk::survivor(const Inode& inode,
                                                        std::mt19937_64& random) {
  auto out = std::make_shared<Inode>();
  const size_t shortest = std::min(inode.safe.size(), inode.now.size());
  const size_t longest = std::max(inode.safe.size(), inode.now.size());
  out->now.resize(shortest + random() % (longest - shortest + 1));
  for (size_t at = 0; at < out->now.size(); at += kSectorBytes) {
    const std::string& from = random() % 2 == 0 ? inode.safe : inode.now;
    const size_t bytes = std::min(kSectorBytes, out->now.size() - at);
    // What was never written reads as zero.
    if (at < from.size()) {
      std::memcpy(out->now.data() + at, from.data() + at, std::min(bytes, from.size() - at));
    }
  }
  out->safe = out->now;
  return out;
}

void MemoryDisk::commit(const std::vector<bool>& chosen) {
  std::vector<Change> left;
  for (size_t i = 0; i < pending_.size(); ++i) {
    Change& change = pending_[i];
    if (!chosen[i]) {
      left.push_back(std::move(change));
      continue;
    }
    apply(safe_, change);
    if (change.kind != Change::Kind::kRename) continue;
    // What happened inside a folder before it got its new name is still not safe.
    for (Change& earlier : left) {
      if (is_below(earlier.path, change.path)) {
        earlier.path = change.to + earlier.path.substr(change.path.size());
      }
      if (is_below(earlier.to, change.path)) {
        earlier.to = change.to + earlier.to.substr(change.path.size());
      }
    }
  }
  pending_ = std::move(left);
}

void MemoryDisk::reboot(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::map<std::string, size_t> changes;
  for (const Change& change : pending_) ++changes[parent_of(change.path)];
  for (auto& [folder, count] : changes) count = random() % (count + 1);
  std::vector<bool> chosen;
  for (const Change& change : pending_) {
    size_t& kept = changes[parent_of(change.path)];
    chosen.push_back(kept > 0);
    kept -= kept > 0 ? 1 : 0;
  }
  commit(chosen);
  pending_.clear();
  for (auto at = safe_.begin(); at != safe_.end();) {
    const bool reachable = at->first == "/" || safe_.contains(parent_of(at->first));
    at = reachable ? std::next(at) : safe_.erase(at);
  }
  for (auto& [path, inode] : safe_) {
    if (inode && inode->now != inode->safe) inode = survivor(*inode, random);
  }
  now_ = safe_;
  crash_at_.reset();
}

void MemoryDisk::flip_bit(const std::string& path, uint64_t offset_bytes, unsigned bit) {
  Inode& inode = *now_.at(path);
  inode.now.at(offset_bytes) = static_cast<char>(inode.now[offset_bytes] ^ (1 << bit));
  inode.safe = inode.now;
}

void MemoryDisk::truncate(const std::string& path, uint64_t bytes) {
  Inode& inode = *now_.at(path);
  inode.now.resize(bytes);
  inode.safe = inode.now;
}

std::map<std::string, std::string> MemoryDisk::files_below(const std::string& folder) const {
  std::map<std::string, std::string> out;
  for (const auto& [path, inode] : now_) {
    if (inode && is_below(path, folder)) out[path.substr(folder.size() + 1)] = inode->now;
  }
  return out;
}

uint64_t MemoryDisk::used_bytes() const {
  uint64_t sum = 0;
  for (const auto& [path, inode] : now_) sum += inode ? inode->now.size() : 0;
  return sum;
}

Result<std::unique_ptr<DiskFile>> MemoryDisk::open(const std::string& path, OpenMode mode) {
  const std::lock_guard guard(mutex_);
  const auto at = now_.find(path);
  const bool empties = mode == OpenMode::kCreate || mode == OpenMode::kCreateDirect;
  const bool writes = empties || mode == OpenMode::kResume;
  if (at != now_.end() && !at->second) return Unexpected(errno_error(path, EISDIR));
  if (at == now_.end()) {
    if (!writes || !now_.contains(parent_of(path))) return Unexpected(errno_error(path, ENOENT));
    AIRLLM_TRY_VOID(change({Change::Kind::kAdd, path, "", std::make_shared<Inode>()}));
  } else if (empties) {
    AIRLLM_TRY_VOID(begin(path));
    at->second->now.clear();
  }
  return std::unique_ptr<DiskFile>(std::make_unique<MemoryFile>(*this, path, now_.at(path)));
}

Result<std::unique_ptr<DiskFile>> MemoryDisk::adopt(UniqueFd fd, const std::string& label,
                                                    OpenMode) {
  const std::lock_guard guard(mutex_);
  AIRLLM_TRY(std::unique_ptr<DiskFile> real,
             system_disk().adopt(std::move(fd), label, OpenMode::kRead));
  return std::unique_ptr<DiskFile>(std::make_unique<SourceFile>(*this, std::move(real)));
}

Result<std::vector<DirEntry>> MemoryDisk::list(const std::string& directory) {
  const std::lock_guard guard(mutex_);
  const auto at = now_.find(directory);
  if (at == now_.end()) return Unexpected(errno_error(directory, ENOENT));
  std::vector<DirEntry> out;
  for (const auto& [path, inode] : now_) {
    if (path != "/" && path != directory && parent_of(path) == directory) {
      out.push_back({path.substr(path.rfind('/') + 1), inode == nullptr});
    }
  }
  return out;
}

bool MemoryDisk::exists(const std::string& path) {
  const std::lock_guard guard(mutex_);
  return now_.contains(path);
}

Status MemoryDisk::make_directories(const std::string& path) {
  const std::lock_guard guard(mutex_);
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (!now_.contains(part)) {
      AIRLLM_TRY_VOID(change({Change::Kind::kAdd, part, "", nullptr}));
      AIRLLM_TRY_VOID(sync_directory(parent_of(part)));
    }
    if (now_.at(part) != nullptr) return Unexpected(errno_error(part, ENOTDIR));
    if (end == std::string::npos) return {};
  }
}

Status MemoryDisk::rename(const std::string& from, const std::string& to) {
  const std::lock_guard guard(mutex_);
  const auto source = now_.find(from);
  if (source == now_.end() || !now_.contains(parent_of(to))) {
    return Unexpected(errno_error(from, ENOENT));
  }
  const auto target = now_.find(to);
  if (target != now_.end() && !target->second) {
    const bool empty = std::none_of(now_.begin(), now_.end(),
                                    [&](const auto& entry) { return is_below(entry.first, to); });
    if (!empty || source->second) return Unexpected(errno_error(to, ENOTEMPTY));
  }
  return change({Change::Kind::kRename, from, to, nullptr});
}

Status MemoryDisk::remove_file(const std::string& path) {
  const std::lock_guard guard(mutex_);
  const auto at = now_.find(path);
  if (at == now_.end() || !at->second) return Unexpected(errno_error(path, ENOENT));
  return change({Change::Kind::kRemove, path, "", nullptr});
}

Status MemoryDisk::remove_tree(const std::string& path) {
  const std::lock_guard guard(mutex_);
  std::vector<std::string> paths;
  for (const auto& [entry, inode] : now_) {
    if (entry == path || is_below(entry, path)) paths.push_back(entry);
  }
  // Children sort behind their folders.
  std::reverse(paths.begin(), paths.end());
  for (const std::string& entry : paths) {
    AIRLLM_TRY_VOID(change({Change::Kind::kRemove, entry, "", nullptr}));
  }
  return {};
}

Status MemoryDisk::sync_directory(const std::string& path) {
  const std::lock_guard guard(mutex_);
  if (!now_.contains(path)) return Unexpected(errno_error(path, ENOENT));
  AIRLLM_TRY_VOID(begin(path));
  std::vector<bool> chosen;
  for (const Change& change : pending_) {
    chosen.push_back(parent_of(change.path) == path || parent_of(change.to) == path);
  }
  commit(chosen);
  return {};
}

Result<uint64_t> MemoryDisk::free_bytes(const std::string& path) {
  const std::lock_guard guard(mutex_);
  if (!now_.contains(path)) return Unexpected(errno_error(path, ENOENT));
  return pretended_free_.value_or(capacity_ - used_bytes());
}

Result<uint64_t> MemoryDisk::total_bytes(const std::string& path) {
  const std::lock_guard guard(mutex_);
  if (!now_.contains(path)) return Unexpected(errno_error(path, ENOENT));
  return capacity_;
}

Result<std::unique_ptr<DiskLock>> MemoryDisk::lock(const std::string& path) {
  const std::lock_guard guard(mutex_);
  bool& held = locks_[path];
  if (held) return Unexpected(ErrorCode::kTemporary, path + ": held by process 1");
  return std::unique_ptr<DiskLock>(std::make_unique<FreeLock>(held));
}

}  // namespace airllm::store

// A lock file held for the daemon's life, with its pid inside.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::daemon {

class LockFile {
 public:
  // Takes the lock. When another process holds it: kTemporary, "<what> is in use by airllmd with
  // pid N". The kernel gives the lock up when the process ends, however it ends.
  static Result<LockFile> acquire(const std::string& path, const std::string& what);

  LockFile(LockFile&&) noexcept = default;
  LockFile& operator=(LockFile&&) noexcept;
  ~LockFile() { release(); }

 private:
  LockFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  // Removes the file while the lock is still held, so that nobody can be holding the new one.
  void release();

  UniqueFd fd_;
  std::string path_;
};

}  // namespace airllm::daemon

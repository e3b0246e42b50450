#include "daemon/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>

namespace airllm::daemon {
namespace {

// The holder's pid, or 0 when it has not written it yet.
long read_pid(int fd) {
  std::array<char, 32> buffer{};
  const ssize_t size = ::pread(fd, buffer.data(), buffer.size(), 0);
  long pid = 0;
  if (size > 0) std::from_chars(buffer.data(), buffer.data() + size, pid);
  return pid;
}

Status write_pid(int fd, const std::string& path) {
  const std::string text = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return Unexpected(errno_error(path, errno));
  }
  return {};
}

Unexpected in_use(int fd, const std::string& what) {
  const long pid = read_pid(fd);
  const std::string holder =
      pid > 0 ? "airllmd with pid " + std::to_string(pid) : "another airllmd";
  return Unexpected(ErrorCode::kTemporary, what + " is in use by " + holder,
                    "stop that one, or choose another with --socket and --store");
}

// Whether `path` still names the open file: a holder that left has removed it.
bool still_named(int fd, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

}  // namespace

Result<LockFile> LockFile::acquire(const std::string& path, const std::string& what) {
  while (true) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.valid()) return Unexpected(errno_error(path, errno));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK) return in_use(fd.get(), what);
      return Unexpected(errno_error(path, errno));
    }
    if (!still_named(fd.get(), path)) continue;
    AIRLLM_TRY_VOID(write_pid(fd.get(), path));
    return LockFile(std::move(fd), path);
  }
}

LockFile& LockFile::operator=(LockFile&& other) noexcept {
  if (this != &other) {
    release();
    fd_ = std::move(other.fd_);
    path_ = std::move(other.path_);
  }
  return *this;
}

void LockFile::release() {
  if (!fd_.valid()) return;
  ::unlink(path_.c_str());
  fd_.reset();
}

}  // namespace airllm::daemon

#include "daemon/listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace airllm::daemon {
namespace {

constexpr int kBacklog = 128;

std::string parent_of(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}

Status check_length(const std::string& path) {
  if (path.size() <= kMaxSocketPath) return {};
  return Unexpected(ErrorCode::kUsage,
                    "the socket's path has " + std::to_string(path.size()) +
                        " bytes, and the system allows " + std::to_string(kMaxSocketPath) + ": " +
                        path,
                    "choose a shorter one with --socket");
}

Status prepare_dir(const ListenerOptions& options) {
  const std::string dir = parent_of(options.path);
  struct stat info {};
  if (::stat(dir.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return {};
    return Unexpected(ErrorCode::kCannotCreate, dir + " is not a directory",
                      "choose another place with --socket");
  }
  if (errno != ENOENT || !options.make_dir) {
    return Unexpected(errno_error("the socket's directory " + dir, errno,
                                  "make it, or choose another with --socket"));
  }
  const mode_t mode = options.group_may_connect ? 0755 : 0700;
  if (::mkdir(dir.c_str(), mode) != 0 && errno != EEXIST) {
    return Unexpected(errno_error("cannot make " + dir, errno, "choose another with --socket"));
  }
  ::chmod(dir.c_str(), mode);
  return {};
}

Status check_replaceable(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return Unexpected(errno_error(path, errno));
  }
  if (S_ISSOCK(info.st_mode)) return {};
  return Unexpected(ErrorCode::kCannotCreate, path + " exists and is not a socket",
                    "remove it, or choose another path with --socket");
}

}  // namespace

Result<Listener> Listener::reserve(const ListenerOptions& options) {
  AIRLLM_TRY_VOID(check_length(options.path));
  AIRLLM_TRY_VOID(prepare_dir(options));
  AIRLLM_TRY_VOID(check_replaceable(options.path));
  Listener listener;
  listener.options_ = options;
  AIRLLM_TRY(LockFile lock, LockFile::acquire(options.path + ".lock", "socket " + options.path));
  listener.lock_.emplace(std::move(lock));
  return listener;
}

Result<std::optional<Listener>> Listener::from_systemd(std::vector<UniqueFd> sockets) {
  if (sockets.empty()) return std::optional<Listener>();
  const int fd = sockets.front().get();
  if (sockets.size() > 1 || ::sd_is_socket_unix(fd, SOCK_STREAM, 1, nullptr, 0) <= 0) {
    return Unexpected(ErrorCode::kConfig, "systemd passed something else than one Unix socket",
                      "check the unit airllmd.socket");
  }
  Listener listener;
  listener.fd_ = std::move(sockets.front());
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  sockaddr_un address{};
  socklen_t length = sizeof(address);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    listener.options_.path.assign(address.sun_path, ::strnlen(address.sun_path, kMaxSocketPath));
    struct stat info {};
    const bool is_there = ::stat(listener.options_.path.c_str(), &info) == 0;
    listener.options_.group_may_connect = !is_there || (info.st_mode & 0077) != 0;
  }
  return std::optional<Listener>(std::move(listener));
}

// Binds through the directory's descriptor: the temporary name may be longer than PATH.
Status Listener::bind_temporary(int dir_fd, const std::string& temporary) {
  const std::string name = "/proc/self/fd/" + std::to_string(dir_fd) + "/" + temporary;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  AIRLLM_CHECK(name.size() <= kMaxSocketPath);
  std::memcpy(address.sun_path, name.data(), name.size());
  fd_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_.valid()) return Unexpected(errno_error("cannot make a socket", errno));
  ::unlinkat(dir_fd, temporary.c_str(), 0);
  // The file is born closed to others: it must never be connectable with a wider mode.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
  const int reason = errno;
  ::umask(before);
  if (bound != 0) {
    return Unexpected(errno_error("cannot make a socket in " + parent_of(options_.path), reason));
  }
  return {};
}

Status Listener::publish() {
  if (!lock_) return {};  // systemd's
  const std::string dir = parent_of(options_.path);
  const UniqueFd dir_fd(::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir_fd.valid()) return Unexpected(errno_error(dir, errno));
  const std::string temporary = ".airllmd-" + std::to_string(::getpid());
  AIRLLM_TRY_VOID(bind_temporary(dir_fd.get(), temporary));
  const mode_t mode = options_.group_may_connect ? 0660 : 0600;
  struct stat info {};
  const std::string final_name = std::filesystem::path(options_.path).filename().string();
  if (::fchmodat(dir_fd.get(), temporary.c_str(), mode, 0) != 0 ||
      ::fstatat(dir_fd.get(), temporary.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::listen(fd_.get(), kBacklog) != 0 ||
      ::renameat(dir_fd.get(), temporary.c_str(), dir_fd.get(), final_name.c_str()) != 0) {
    const int reason = errno;
    ::unlinkat(dir_fd.get(), temporary.c_str(), 0);
    return Unexpected(errno_error("cannot listen on " + options_.path, reason));
  }
  device_ = info.st_dev;
  inode_ = info.st_ino;
  published_ = true;
  return {};
}

void Listener::withdraw() {
  if (!fd_.valid()) return;
  fd_.reset();
  if (!published_) return;
  struct stat info {};
  if (::lstat(options_.path.c_str(), &info) == 0 && info.st_dev == device_ &&
      info.st_ino == inode_) {
    ::unlink(options_.path.c_str());
  }
}

}  // namespace airllm::daemon

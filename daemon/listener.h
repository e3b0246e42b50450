// The listening socket: made under a temporary name and renamed when the daemon can answer, or
// passed by systemd.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "daemon/lock_file.h"

namespace airllm::daemon {

// What a Unix socket's address holds, without its final zero.
inline constexpr size_t kMaxSocketPath = 107;

struct ListenerOptions {
  std::string path;       // absolute
  bool make_dir = false;  // make the directory (0700, or 0755 with `group_may_connect`)
  bool group_may_connect = false;
};

class Listener {
 public:
  // Takes the lock PATH.lock and checks what is at PATH, so that a second daemon fails before it
  // opens a store. Errors: kUsage (path too long), kTemporary (held by another daemon),
  // kCannotCreate (something that is no socket is there), or the system's.
  static Result<Listener> reserve(const ListenerOptions& options);
  // The one of `sockets` that systemd passed; nothing when it passed none.
  static Result<std::optional<Listener>> from_systemd(std::vector<UniqueFd> sockets);

  // Listens, then appears under PATH in one step. Call once all is ready. Nothing to do for a
  // socket of systemd's.
  Status publish();

  // Removes the socket and stops listening; the lock is kept. The destructor does both.
  void withdraw();

  int fd() const { return fd_.get(); }
  // Whether the socket is for others than the daemon's own user, too.
  bool others_may_connect() const { return options_.group_may_connect; }
  // Whether the socket is one that systemd passed: it outlives this process and is never unlinked.
  bool is_systemds() const { return !lock_; }
  const std::string& path() const { return options_.path; }

  Listener(Listener&&) noexcept = default;
  Listener& operator=(Listener&&) = delete;
  ~Listener() { withdraw(); }

 private:
  Listener() = default;
  Status bind_temporary(int dir_fd, const std::string& temporary);

  ListenerOptions options_;
  std::optional<LockFile> lock_;  // released last
  UniqueFd fd_;
  bool published_ = false;
  dev_t device_ = 0;  // of the socket file that we made, so that only that is removed
  ino_t inode_ = 0;
};

}  // namespace airllm::daemon

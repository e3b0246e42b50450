#include "daemon/fd_store.h"

#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace airllm::daemon {
namespace {

// Other names cannot be in a message to the service manager, which has none of them.
bool is_fd_name(const std::string& name) {
  constexpr size_t kMostCharacters = 255;
  return !name.empty() && name.size() <= kMostCharacters &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return c > ' ' && c <= '~' && c != ':'; });
}

bool is_socket(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

}  // namespace

PassedFds PassedFds::take() {
  PassedFds out;
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(1, &names);
  for (int i = 0; i < count; ++i) {
    UniqueFd fd(SD_LISTEN_FDS_START + i);
    if (is_socket(fd.get())) {
      out.sockets.push_back(std::move(fd));
    } else {
      out.held.push_back({names[i], std::move(fd)});
    }
  }
  for (char** name = names; name != nullptr && *name != nullptr; ++name) std::free(*name);
  std::free(names);
  return out;
}

void FdStore::keep(const std::string& name, int fd) {
  if (!is_fd_name(name)) return;
  // Not to be watched: a memfd is never hung up.
  ::sd_pid_notify_with_fds(0, 0, ("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name).c_str(), &fd, 1);
}

void FdStore::forget(const std::string& name) {
  if (!is_fd_name(name)) return;
  ::sd_notify(0, ("FDSTOREREMOVE=1\nFDNAME=" + name).c_str());
}

}  // namespace airllm::daemon

// systemd's file descriptor store (sd_pid_notify_with_fds(3), FileDescriptorStoreMax=): what this
// process gives the service manager to hold, the next one gets at its start. It lasts over a
// restart and a crash, and ends with a stop. Without a service manager nothing is held.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "engine/engine.h"

namespace airllm::daemon {

// What the service manager passed at the start (sd_listen_fds_with_names(3)).
struct PassedFds {
  // Call once.
  static PassedFds take();

  std::vector<UniqueFd> sockets;
  std::vector<engine::MemoryStore::Entry> held;  // whatever is no socket
};

class FdStore : public engine::MemoryStore {
 public:
  explicit FdStore(std::vector<Entry> held) : held_(std::move(held)) {}

  std::vector<Entry> take() override { return std::exchange(held_, {}); }
  void keep(const std::string& name, int fd) override;
  void forget(const std::string& name) override;

 private:
  std::vector<Entry> held_;
};

}  // namespace airllm::daemon

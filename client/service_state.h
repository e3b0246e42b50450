// What systemd says of the daemon's units.
#pragma once

#include <optional>
#include <string>

namespace airllm::client {

enum class Manager { kSystem, kUser };

// ActiveState as `systemctl is-active` prints it: "active", "inactive", "failed", "activating" …
struct ServiceState {
  std::string socket;   // of airllmd.socket
  std::string service;  // of airllmd.service
};

// Nothing where this manager does not run, has no systemctl, or does not answer within two seconds.
std::optional<ServiceState> service_state(Manager manager);

}  // namespace airllm::client

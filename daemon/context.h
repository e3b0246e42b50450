// What all connections of a server share. Belongs to the connection thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "daemon/job_table.h"
#include "daemon/models.h"
#include "engine/engine.h"

namespace airllm::daemon {

struct ServerOptions {
  std::string socket_path;  // for status
  std::string store_dir;    // for status
  // The socket is systemd's and outlives this daemon: who connects later waits in its queue.
  bool socket_stays = false;
  uint64_t send_buffer_bytes = uint64_t{64} << 20;
  uint64_t max_connections = 256;
  std::chrono::milliseconds stop_timeout{10000};
  std::chrono::milliseconds hello_timeout{5000};
  // A peer whose job was given up, and that then reads nothing for this long, is disconnected.
  std::chrono::milliseconds stuck_timeout{10000};
  // How long the last frames may take to a peer that is to be disconnected.
  std::chrono::milliseconds linger{2000};
};

// Belongs to the connection thread.
struct Context {
  engine::Engine& engine;
  JobTable& jobs;
  DefaultModel& default_model;
  const ServerOptions& options;
  std::chrono::steady_clock::time_point started;
  bool stopping = false;
};

}  // namespace airllm::daemon

// What all connections of a server share. Belongs to the connection thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "daemon/admission.h"
#include "daemon/byte_budget.h"
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
  uint64_t max_splits_per_user = 2;  // with verifications, benches; not for operators (user.h)
  uint64_t split_memory_bytes = engine::kSplitMemoryBytes;
  std::optional<gid_t> admin_group;  // whose members manage all models
  // What waits for all clients, and for those of one user.
  uint64_t sent_bytes = uint64_t{256} << 20;
  uint64_t sent_per_user_bytes = uint64_t{224} << 20;
  // Frames that have not come whole yet, of all connections and of one user's.
  uint64_t received_bytes = uint64_t{64} << 20;
  uint64_t received_per_user_bytes = uint64_t{56} << 20;
  ConnectionLimits connections;
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
  ByteBudget received;  // bytes of frames that have not come whole yet
  // Bytes that wait for clients. Outboxes, which hold it, may outlive the server.
  std::shared_ptr<ByteBudget> sent;
  bool stopping = false;
  // Somebody has given a model's memory back by hand, and nobody has asked a model since.
  bool memory_given_back = false;
};

}  // namespace airllm::daemon

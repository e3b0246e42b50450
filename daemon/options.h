// The daemon's settings: flags over the configuration file over defaults.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/duration.h"
#include "base/log.h"
#include "base/result.h"
#include "engine/engine.h"

namespace airllm::daemon {

struct Options {
  bool foreground = false;  // log to stderr even when systemd started us
  std::string socket_path;  // absolute
  std::string store_dir;    // absolute
  // The directories of the default paths are made when missing; one that a person named is not.
  bool default_socket = true;
  bool system = false;  // the system's daemon: group may connect
  std::optional<uint64_t> ram_bytes;
  std::optional<uint64_t> kv_bytes;
  unsigned threads = 0;  // 0: one per core
  engine::DeviceKind device = engine::DeviceKind::kCpu;
  std::optional<uint64_t> vram_bytes;  // given where the device has memory of its own
  uint64_t bus_bytes_per_second = 0;   // 0: as fast as memory can be copied
  bool guards_device = false;          // AIRLLM_DEBUG_GUARD
  engine::WeightReader reader = engine::WeightReader::kAuto;
  bool direct_io = true;
  std::string model;  // the default model; empty: none
  log::Level log_level = log::Level::kInfo;
  uint64_t stop_timeout_seconds = 10;
  uint64_t send_buffer_bytes = uint64_t{64} << 20;    // per connection
  uint64_t send_buffers_bytes = uint64_t{256} << 20;  // of all connections
  std::optional<uint64_t> send_buffers_per_user_bytes;
  uint64_t send_timeout_seconds = 10;
  uint64_t read_timeout_seconds = 120;
  uint64_t max_connections = 256;
  uint64_t max_jobs = 64;
  uint64_t max_splits = 4;
  uint64_t max_splits_per_user = 2;
  uint64_t split_memory_bytes = engine::kSplitMemoryBytes;  // of each
  std::optional<uint64_t> store_quota_bytes;                // of each user's models
  std::optional<gid_t> admin_group;
  uint64_t max_prompt_bytes = uint64_t{8} << 20;    // of one request
  uint64_t max_prompts_bytes = uint64_t{64} << 20;  // of all jobs
  uint64_t max_logprobs = uint64_t{1} << 28;        // prompt tokens times log-probabilities each
  // Whether others than the daemon's own user (and root) may connect.
  bool has_other_users = true;
  // What one user may take. Unset: where others may connect, all but an eighth; else, and of kv,
  // all.
  std::optional<uint64_t> max_connections_per_user;
  std::optional<uint64_t> max_jobs_per_user;
  std::optional<uint64_t> max_prompts_per_user_bytes;
  std::optional<uint64_t> kv_per_user_bytes;
  // Of models that nobody asks; those of `keep` stay.
  std::chrono::milliseconds keep_alive = std::chrono::minutes(5);
  std::vector<std::string> keep;
  // Ends when it holds no model and nothing was asked for the time of keep_alive.
  bool exit_when_idle = false;
  std::optional<engine::DebugHang> debug_hang;  // AIRLLM_DEBUG_HANG

  // The text of each setting that the file or a flag gave, by name.
  std::map<std::string, std::string, std::less<>> given;

  uint64_t prompts_per_user_bytes() const {
    return max_prompts_per_user_bytes.value_or(share_of(max_prompts_bytes));
  }
  uint64_t send_buffers_per_user() const {
    return send_buffers_per_user_bytes.value_or(share_of(send_buffers_bytes));
  }
  uint64_t connections_per_user() const {
    return max_connections_per_user.value_or(share_of(max_connections));
  }
  uint64_t jobs_per_user() const { return max_jobs_per_user.value_or(share_of(max_jobs)); }

 private:
  // Of less than eight things there is no eighth.
  uint64_t share_of(uint64_t all) const { return has_other_users ? all - all / 8 : all; }
};

// What the environment says, so that tests can say it too.
struct Environment {
  // Whether the defaults are the system's: for root, unless a login gave it a place of its own in
  // XDG_RUNTIME_DIR, which systemd's system services do not have. The client decides alike.
  bool is_system() const { return root && !xdg_runtime_dir.starts_with('/'); }

  bool root = false;
  std::string home;
  std::string xdg_runtime_dir;
  std::string xdg_data_home;
  std::string xdg_config_home;
  std::string debug_hang;
  std::string keep_alive;
  bool guards_device = false;
  static Environment current();
};

// What a command line asks for: to run with `options`, or to print `text` and leave (--help).
struct CommandLine {
  std::optional<std::string> print;
  Options options;
};

// `args` without the program's name. `socket_given` says that systemd passed the socket, so that no
// path of one is needed. A wrong flag is a kUsage error, a wrong line of the file kConfig with its
// place ("airllmd.conf:7").
Result<CommandLine> parse_command_line(const std::vector<std::string>& args,
                                       const Environment& environment, bool socket_given = false);

// The settings that differ, by name.
struct SettingsChange {
  std::vector<std::string> live;          // can change while the daemon runs
  std::vector<std::string> need_restart;  // cannot
};
SettingsChange changed_settings(const Options& before, const Options& after);

// Applies the lines `key = value` of a configuration file; `path` is for messages.
Status apply_config(std::string_view text, const std::string& path, Options& options);

}  // namespace airllm::daemon

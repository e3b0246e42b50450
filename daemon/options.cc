#include "daemon/options.h"

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/units.h"
#include "base/users.h"
#include "base/version.h"

namespace airllm::daemon {
namespace {

constexpr std::streamoff kMaxConfigBytes = 1 << 20;
constexpr const char* kSystemConfig = "/etc/airllm/airllmd.conf";

Result<uint64_t> parse_count(const std::string& text, uint64_t low, uint64_t high) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || value < low || value > high) {
    return Unexpected(ErrorCode::kUsage, "not a number from " + std::to_string(low) + " to " +
                                             std::to_string(high) + ": '" + text + "'");
  }
  return value;
}

// `Out`: uint64_t or an optional one.
template <typename Out>
Status set_count(const std::string& text, uint64_t low, uint64_t high, Out& out) {
  AIRLLM_TRY(out, parse_count(text, low, high));
  return {};
}

template <typename Out>
Status set_size(const std::string& text, uint64_t low, Out& out) {
  AIRLLM_TRY(const uint64_t bytes, parse_size(text));
  if (bytes < low) {
    return Unexpected(ErrorCode::kUsage, "too small: '" + text + "'",
                      "give at least " + format_size(low));
  }
  out = bytes;
  return {};
}

Status set_path(const std::string& text, std::string& out) {
  if (text.empty()) return Unexpected(ErrorCode::kUsage, "the path is empty");
  std::error_code error;
  out = std::filesystem::absolute(text, error).lexically_normal().string();
  if (error) return Unexpected(ErrorCode::kUsage, text + ": " + error.message());
  return {};
}

Status set_group(const std::string& text, std::optional<gid_t>& out) {
  out = find_group(text);
  if (out) return {};
  return Unexpected(ErrorCode::kConfig, "there is no group '" + text + "'",
                    "make it with groupadd, or name another");
}

Status set_flag(const std::string& text, bool& out) {
  if (text != "yes" && text != "no") {
    return Unexpected(ErrorCode::kUsage, "neither yes nor no: '" + text + "'");
  }
  out = text == "yes";
  return {};
}

Status set_reader(const std::string& text, engine::WeightReader& out) {
  using engine::WeightReader;
  const std::map<std::string_view, WeightReader> kinds = {{"auto", WeightReader::kAuto},
                                                          {"io_uring", WeightReader::kUring},
                                                          {"threads", WeightReader::kThreads}};
  const auto found = kinds.find(text);
  if (found == kinds.end()) {
    return Unexpected(ErrorCode::kUsage, "not a way to read: '" + text + "'",
                      "use auto, io_uring or threads");
  }
  out = found->second;
  return {};
}

Status set_device(const std::string& text, engine::DeviceKind& out) {
  if (text != "cpu" && text != "simulated") {
    return Unexpected(ErrorCode::kUsage, "not a device: '" + text + "'", "use cpu or simulated");
  }
  out = text == "cpu" ? engine::DeviceKind::kCpu : engine::DeviceKind::kSimulated;
  return {};
}

// What only devices with memory of their own have.
Status check_device(const Options& options) {
  const bool has_own_memory = options.device != engine::DeviceKind::kCpu;
  if (has_own_memory && !options.vram_bytes) {
    return Unexpected(ErrorCode::kConfig, "the simulated device has no memory without vram",
                      "give it some: --vram SIZE");
  }
  const char* const given = options.vram_bytes                 ? "vram"
                            : options.bus_bytes_per_second > 0 ? "bus-speed"
                                                               : nullptr;
  if (has_own_memory || given == nullptr) return {};
  return Unexpected(ErrorCode::kConfig,
                    std::string(given) + " is set, but the device cpu computes in RAM",
                    std::string("leave ") + given + " out, or set device to simulated");
}

Status set_duration(const std::string& text, std::chrono::milliseconds& out) {
  AIRLLM_TRY(out, parse_duration(text));
  return {};
}

// Names with commas or blanks between them.
Status set_names(std::string_view text, std::vector<std::string>& out) {
  constexpr std::string_view kBetween = ", \t";
  out.clear();
  for (size_t at = 0; (at = text.find_first_not_of(kBetween, at)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    out.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return {};
}

constexpr uint64_t kMinRam = 512 * kKiB;
// A tile would take longer than a read may.
constexpr uint64_t kMinBusSpeed = 1 * kMiB;
// A frame must fit, and a few of the longest ones wait while one is written.
constexpr uint64_t kMinSendBuffer = 1 * kMiB;

// One setting: a flag `--name` and a key `name` of the file.
struct Setting {
  const char* name;
  const char* value;  // how help names it
  const char* help;
  Status (*set)(const std::string& text, Options& options);
  bool live = false;     // can change while the daemon runs
  bool is_list = false;  // the flag may be given again, for one more
};

const auto kSettings = std::to_array<Setting>({
    {"socket", "PATH", "the Unix socket to listen on",
     [](const std::string& text, Options& o) {
       o.default_socket = false;
       return set_path(text, o.socket_path);
     }},
    {"store", "DIR", "where models are kept",
     [](const std::string& text, Options& o) { return set_path(text, o.store_dir); }},
    {"ram", "SIZE", "memory for weights and activations (512K or more; K, M, G are binary)",
     [](const std::string& text, Options& o) { return set_size(text, kMinRam, o.ram_bytes); }},
    {"kv", "SIZE", "memory for keys and values",
     [](const std::string& text, Options& o) { return set_size(text, 0, o.kv_bytes); }},
    {"kv-per-user", "SIZE", "of that, the part of one user",
     [](const std::string& text, Options& o) { return set_size(text, 1, o.kv_per_user_bytes); }},
    {"threads", "N", "compute threads (0: one per core)",
     [](const std::string& text, Options& o) -> Status {
       uint64_t count = 0;
       AIRLLM_TRY_VOID(set_count(text, 0, 1024, count));
       o.threads = static_cast<unsigned>(count);
       return {};
     }},
    {"device", "KIND",
     "what computes: cpu, or simulated (a device with memory of its own, for tests)",
     [](const std::string& text, Options& o) { return set_device(text, o.device); }},
    {"vram", "SIZE", "the device's own memory: weights, activations, keys and values",
     [](const std::string& text, Options& o) { return set_size(text, kMinRam, o.vram_bytes); }},
    {"bus-speed", "SIZE", "what is copied to the simulated device in a second",
     [](const std::string& text, Options& o) {
       return set_size(text, kMinBusSpeed, o.bus_bytes_per_second);
     }},
    {"reader", "KIND", "how weights are read: auto, io_uring or threads",
     [](const std::string& text, Options& o) { return set_reader(text, o.reader); }},
    {"direct-io", "yes|no", "read weights past the page cache, where the file system allows it",
     [](const std::string& text, Options& o) { return set_flag(text, o.direct_io); }},
    {"model", "NAME", "the model of requests that name none",
     [](const std::string& text, Options& o) -> Status {
       o.model = text;
       return {};
     },
     true},
    {"keep-alive", "DURATION", "how long a model that nobody asks keeps its memory",
     [](const std::string& text, Options& o) { return set_duration(text, o.keep_alive); }, true},
    {"keep", "MODEL", "a shared model that keeps its memory; may be given again",
     [](const std::string& text, Options& o) { return set_names(text, o.keep); }, true, true},
    {"log-level", "LEVEL", "debug, info, warning or error",
     [](const std::string& text, Options& o) -> Status {
       if (log::parse_level(text, o.log_level)) return {};
       return Unexpected(ErrorCode::kUsage, "not a log level: '" + text + "'",
                         "use debug, info, warning or error");
     },
     true},
    {"stop-timeout", "SECONDS", "how long running jobs may go on when the daemon stops",
     [](const std::string& text, Options& o) {
       return set_count(text, 0, 86400, o.stop_timeout_seconds);
     },
     true},
    {"read-timeout", "SECONDS", "how long a read may take before its job fails",
     [](const std::string& text, Options& o) {
       return set_count(text, 1, 86400, o.read_timeout_seconds);
     },
     true},
    {"send-buffer", "SIZE", "what may wait for a client that does not read, per connection",
     [](const std::string& text, Options& o) {
       return set_size(text, kMinSendBuffer, o.send_buffer_bytes);
     },
     true},
    {"send-buffers", "SIZE", "what may wait for all clients",
     [](const std::string& text, Options& o) {
       return set_size(text, kMinSendBuffer, o.send_buffers_bytes);
     },
     true},
    {"send-buffers-per-user", "SIZE", "of that, the part of one user's",
     [](const std::string& text, Options& o) {
       return set_size(text, kMinSendBuffer, o.send_buffers_per_user_bytes);
     },
     true},
    {"send-timeout", "SECONDS", "how long a job waits for a client that does not read",
     [](const std::string& text, Options& o) {
       return set_count(text, 1, 86400, o.send_timeout_seconds);
     },
     true},
    {"max-connections", "N", "clients at once",
     [](const std::string& text,
        Options& o) { return set_count(text, 1, 100000, o.max_connections); },
     true},
    {"max-connections-per-user", "N", "of them, those of one user",
     [](const std::string& text, Options& o) {
       return set_count(text, 1, 100000, o.max_connections_per_user);
     },
     true},
    {"max-jobs", "N", "jobs at once, running and queued",
     [](const std::string& text, Options& o) { return set_count(text, 1, 100000, o.max_jobs); },
     true},
    {"max-splits", "N", "splits, verifications and benches at once",
     [](const std::string& text, Options& o) { return set_count(text, 1, 1000, o.max_splits); },
     true},
    {"max-splits-per-user", "N", "of them, those of one user",
     [](const std::string& text, Options& o) {
       return set_count(text, 1, 1000, o.max_splits_per_user);
     },
     true},
    {"split-memory", "SIZE", "memory for the weights on their way through a split",
     [](const std::string& text, Options& o) {
       return set_size(text, engine::kLeastSplitMemoryBytes, o.split_memory_bytes);
     },
     true},
    {"store-quota", "SIZE", "what the models of one user may take of the store",
     [](const std::string& text, Options& o) { return set_size(text, 0, o.store_quota_bytes); },
     true},
    {"admin-group", "GROUP", "the group whose members may remove and share all models",
     [](const std::string& text, Options& o) { return set_group(text, o.admin_group); }, true},
    {"max-jobs-per-user", "N", "of them, those of one user",
     [](const std::string& text, Options& o) {
       return set_count(text, 1, 100000, o.max_jobs_per_user);
     },
     true},
    {"max-prompt", "SIZE", "the longest prompt",
     [](const std::string& text, Options& o) { return set_size(text, 1, o.max_prompt_bytes); },
     true},
    {"max-prompts", "SIZE", "what the prompts of all jobs may take",
     [](const std::string& text, Options& o) { return set_size(text, 1, o.max_prompts_bytes); },
     true},
    {"max-prompts-per-user", "SIZE", "what the prompts of one user's jobs may take",
     [](const std::string& text, Options& o) {
       return set_size(text, 1, o.max_prompts_per_user_bytes);
     },
     true},
    {"max-logprobs", "N", "prompt tokens times log-probabilities for each, of one job",
     [](const std::string& text, Options& o) {
       return set_count(text, 1, uint64_t{1} << 53, o.max_logprobs);
     },
     true},
});

const Setting* find_setting(std::string_view name) {
  for (const Setting& setting : kSettings) {
    if (setting.name == name) return &setting;
  }
  return nullptr;
}

Status apply_setting(const Setting& setting, const std::string& text, Options& options) {
  AIRLLM_TRY_VOID(setting.set(text, options));
  options.given.insert_or_assign(setting.name, text);
  return {};
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

Status apply_line(std::string_view line, std::set<std::string, std::less<>>& seen,
                  Options& options) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) {
    return Unexpected(ErrorCode::kConfig, "not a line of the form 'key = value'");
  }
  const std::string key(trimmed(line.substr(0, equals)));
  const Setting* setting = find_setting(key);
  if (setting == nullptr) {
    return Unexpected(ErrorCode::kConfig, "unknown setting '" + key + "'",
                      "airllmd.conf(5) lists the settings");
  }
  if (!seen.insert(key).second) {
    return Unexpected(ErrorCode::kConfig, "'" + key + "' is set twice");
  }
  return apply_setting(*setting, std::string(trimmed(line.substr(equals + 1))), options);
}

// ---- defaults ----------------------------------------------------------------------------------

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before any thread
  return value == nullptr ? std::string() : std::string(value);
}

// XDG_RUNTIME_DIR; without it, as for su(1) and cron(8), what a login of the user made.
std::string runtime_dir() {
  std::string dir = from_environment("XDG_RUNTIME_DIR");
  if (dir.starts_with('/') || ::geteuid() == 0) return dir;
  dir = "/run/user/" + std::to_string(::getuid());
  struct stat info {};
  const bool is_ours = ::stat(dir.c_str(), &info) == 0 && info.st_uid == ::getuid();
  return is_ours ? dir : std::string();
}

// XDG's rule: a variable that is no absolute path counts as unset.
std::string xdg_dir(const std::string& value, const std::string& home, const char* below_home) {
  if (value.starts_with('/')) return value;
  return home.empty() ? std::string() : home + below_home;
}

std::string default_config_path(const Environment& environment) {
  if (environment.is_system()) return kSystemConfig;
  const std::string dir = xdg_dir(environment.xdg_config_home, environment.home, "/.config");
  const std::string user = dir + "/airllm/airllmd.conf";
  std::error_code error;
  if (!dir.empty() && std::filesystem::exists(user, error)) return user;
  return kSystemConfig;
}

Status fill_socket(const Environment& environment, Options& options) {
  if (environment.is_system()) {
    options.socket_path = "/run/airllm/airllm.sock";
    options.system = true;
    return {};
  }
  if (!environment.xdg_runtime_dir.starts_with('/')) {
    return Unexpected(ErrorCode::kUsage,
                      "XDG_RUNTIME_DIR is not set, so there is no default socket",
                      "give one: airllmd --socket PATH");
  }
  options.socket_path = environment.xdg_runtime_dir + "/airllm/airllm.sock";
  return {};
}

Status fill_store(const Environment& environment, Options& options) {
  if (environment.is_system()) {
    options.store_dir = "/var/lib/airllm";
    return {};
  }
  const std::string dir = xdg_dir(environment.xdg_data_home, environment.home, "/.local/share");
  if (dir.empty()) {
    return Unexpected(ErrorCode::kUsage, "neither XDG_DATA_HOME nor HOME is set",
                      "say where models are kept: airllmd --store DIR");
  }
  options.store_dir = dir + "/airllm";
  return {};
}

// AIRLLM_KEEP_ALIVE is the default of the setting.
Status set_default_keep_alive(const std::string& text, Options& options) {
  if (text.empty()) return {};
  if (set_duration(text, options.keep_alive)) return {};
  return Unexpected(ErrorCode::kConfig, "AIRLLM_KEEP_ALIVE is '" + text + "'",
                    "use a duration such as 30m, or 'forever'");
}

// "engine:N" or "read:N".
Status set_debug_hang(const std::string& text, Options& options) {
  if (text.empty()) return {};
  const size_t colon = text.find(':');
  const std::string where = text.substr(0, colon);
  engine::DebugHang hang;
  const bool is_read = where == "read";
  if (colon == std::string::npos || (!is_read && where != "engine") ||
      !set_count(text.substr(colon + 1), 0, uint64_t{1} << 40, hang.after)) {
    return Unexpected(ErrorCode::kConfig, "AIRLLM_DEBUG_HANG is '" + text + "'",
                      "use engine:N or read:N, or leave it out: it is for tests");
  }
  hang.where = is_read ? engine::DebugHang::Where::kRead : engine::DebugHang::Where::kEngine;
  options.debug_hang = hang;
  return {};
}

// ---- files and flags ---------------------------------------------------------------------------

Result<std::string> read_config(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Unexpected(errno_error(path, errno, "check --config"));
  file.seekg(0, std::ios::end);
  const std::streamoff size = file.tellg();
  if (size < 0 || size > kMaxConfigBytes) {
    return Unexpected(ErrorCode::kConfig, path + ": not a configuration file (too long)",
                      "check --config");
  }
  file.seekg(0);
  std::string text(static_cast<size_t>(size), '\0');
  if (!file.read(text.data(), size)) {
    return Unexpected(ErrorCode::kConfig, path + ": not readable", "check --config");
  }
  return text;
}

Status load_config(const std::string& given, const Environment& environment, Options& options) {
  const std::string path = given.empty() ? default_config_path(environment) : given;
  std::error_code error;
  if (given.empty() && !std::filesystem::exists(path, error)) return {};
  AIRLLM_TRY(const std::string text, read_config(path));
  return apply_config(text, path, options);
}

struct Flags {
  std::string config;
  std::array<std::string, kSettings.size()> values;
  std::array<CLI::Option*, kSettings.size()> given{};
};

void declare_flags(CLI::App& app, Flags& flags, Options& options) {
  app.set_version_flag("--version", std::string("airllmd ") + kProgramVersion);
  app.add_flag("--foreground", options.foreground, "log to stderr even when systemd started it");
  app.add_flag("--exit-when-idle", options.exit_when_idle,
               "end when it holds no model and nothing was asked for the time of --keep-alive");
  app.add_option("--config", flags.config, "the configuration file")
      ->type_name("FILE")
      ->take_last();
  for (size_t i = 0; i < kSettings.size(); ++i) {
    const Setting& setting = kSettings[i];
    flags.given[i] = app.add_option("--" + std::string(setting.name), flags.values[i], setting.help)
                         ->type_name(setting.value);
    setting.is_list ? flags.given[i]->join(',') : flags.given[i]->take_last();
  }
}

Status apply_flags(const Flags& flags, Options& options) {
  for (size_t i = 0; i < kSettings.size(); ++i) {
    if (flags.given[i]->count() == 0) continue;
    if (auto status = apply_setting(kSettings[i], flags.values[i], options); !status) {
      Error error = std::move(status).error();
      if (error.remedy.empty()) error.remedy = "airllmd.conf(5) describes the settings";
      error.message = "--" + std::string(kSettings[i].name) + ": " + error.message;
      return Unexpected(std::move(error));
    }
  }
  return {};
}

}  // namespace

Environment Environment::current() {
  return {::geteuid() == 0,
          from_environment("HOME"),
          runtime_dir(),
          from_environment("XDG_DATA_HOME"),
          from_environment("XDG_CONFIG_HOME"),
          from_environment("AIRLLM_DEBUG_HANG"),
          from_environment("AIRLLM_KEEP_ALIVE"),
          !from_environment("AIRLLM_DEBUG_GUARD").empty()};
}

Status apply_config(std::string_view text, const std::string& path, Options& options) {
  std::set<std::string, std::less<>> seen;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (line.empty() || line.front() == '#') continue;
    if (auto status = apply_line(line, seen, options); !status) {
      Error error = std::move(status).error();
      error.code = ErrorCode::kConfig;
      if (error.remedy.empty()) error.remedy = "airllmd.conf(5) describes the settings";
      error.message = path + ":" + std::to_string(number) + ": " + error.message;
      return Unexpected(std::move(error));
    }
  }
  return {};
}

SettingsChange changed_settings(const Options& before, const Options& after) {
  SettingsChange change;
  for (const Setting& setting : kSettings) {
    const auto old_text = before.given.find(setting.name);
    const auto new_text = after.given.find(setting.name);
    const bool had = old_text != before.given.end();
    const bool has = new_text != after.given.end();
    if (had == has && (!has || old_text->second == new_text->second)) continue;
    (setting.live ? change.live : change.need_restart).emplace_back(setting.name);
  }
  return change;
}

Result<CommandLine> parse_command_line(const std::vector<std::string>& args,
                                       const Environment& environment, bool socket_given) {
  CommandLine line;
  Flags flags;
  CLI::App app("airllmd: runs language models larger than memory", "airllmd");
  declare_flags(app, flags, line.options);
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream problem;
    if (app.exit(error, out, problem) == 0) {
      line.print = out.str();
      return line;
    }
    return Unexpected(ErrorCode::kUsage, error.what(), "airllmd --help lists the options");
  }
  AIRLLM_TRY_VOID(set_default_keep_alive(environment.keep_alive, line.options));
  AIRLLM_TRY_VOID(load_config(flags.config, environment, line.options));
  AIRLLM_TRY_VOID(apply_flags(flags, line.options));
  AIRLLM_TRY_VOID(check_device(line.options));
  line.options.guards_device = environment.guards_device;
  AIRLLM_TRY_VOID(set_debug_hang(environment.debug_hang, line.options));
  if (line.options.socket_path.empty() && !socket_given) {
    AIRLLM_TRY_VOID(fill_socket(environment, line.options));
  }
  if (line.options.store_dir.empty()) AIRLLM_TRY_VOID(fill_store(environment, line.options));
  return line;
}

}  // namespace airllm::daemon

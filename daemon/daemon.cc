#include "daemon/daemon.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "base/log.h"
#include "base/utf8.h"
#include "base/version.h"
#include "daemon/listener.h"
#include "daemon/options.h"
#include "daemon/server.h"

namespace airllm::daemon {
namespace {

int report(const Error& error) {
  log::error("{}", error.message);
  if (!error.remedy.empty()) log::error("{}", error.remedy);
  return exit_status(error.code);
}

void prepare_process() {
  std::signal(SIGPIPE, SIG_IGN);  // NOLINT(bugprone-signal-handler)
  // Prompts and answers are in memory: no core files.
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  // Connections and the shards of many models need descriptors.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  ::umask(077);
}

// Whether stderr is the journal's stream: JOURNAL_STREAM is its "device:inode" (systemd.exec(5)).
bool stderr_is_journal() {
  const char* value = std::getenv("JOURNAL_STREAM");  // NOLINT(concurrency-mt-unsafe)
  struct stat info {};
  if (value == nullptr || ::fstat(STDERR_FILENO, &info) != 0) return false;
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) == value;
}

// By hand and for a user the store's folders are made; the engine makes the last one.
Status make_parents(const std::string& dir) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(dir).parent_path(), error);
  if (!error) return {};
  return Unexpected(ErrorCode::kCannotCreate,
                    "cannot make the folder of " + dir + ": " + error.message(),
                    "choose another store with --store");
}

Result<Listener> reserve_socket(const Options& options) {
  AIRLLM_TRY(std::optional<Listener> given, Listener::from_systemd());
  if (given) return std::move(*given);
  return Listener::reserve({options.socket_path, options.default_socket, options.system});
}

engine::EngineOptions engine_options(const Options& options) {
  engine::EngineOptions out;
  out.store_dir = options.store_dir;
  out.ram_bytes = options.ram_bytes;
  out.kv_bytes = options.kv_bytes;
  out.threads = options.threads;
  out.max_jobs = options.max_jobs;
  out.max_splits = options.max_splits;
  out.store_quota_bytes = options.store_quota_bytes;
  out.max_jobs_per_user = options.max_jobs_per_user;
  out.max_prompt_bytes = options.max_prompt_bytes;
  out.max_prompts_bytes = options.max_prompts_bytes;
  out.max_prompts_per_user_bytes = options.prompts_per_user_bytes();
  out.kv_per_user_bytes = options.kv_per_user_bytes;
  out.pause_timeout = std::chrono::seconds(options.send_timeout_seconds);
  out.max_logprobs = options.max_logprobs;
  return out;
}

ServerOptions server_options(const Options& options, const Listener& listener) {
  ServerOptions out;
  out.socket_path = listener.path();
  out.store_dir = options.store_dir;
  out.send_buffer_bytes = options.send_buffer_bytes;
  out.max_splits_per_user = options.max_splits_per_user;
  out.admin_group = options.admin_group;
  out.sent_bytes = options.send_buffers_bytes;
  out.sent_per_user_bytes = options.send_buffers_per_user();
  out.received_bytes = options.max_prompts_bytes;
  out.received_per_user_bytes = options.prompts_per_user_bytes();
  out.connections = {options.max_connections, options.connections_per_user()};
  out.stop_timeout = std::chrono::seconds(options.stop_timeout_seconds);
  return out;
}

// The first signal stops in order, the second at once.
class Signals {
 public:
  Signals(asio::io_context& io, std::function<void()> stop)
      : signals_(io, SIGTERM, SIGINT), stop_(std::move(stop)) {
    // nohup(1) ignores it, and means it.
    struct sigaction hangup {};
    if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
      signals_.add(SIGHUP);
    }
    wait();
  }

  void cancel() { signals_.cancel(); }

 private:
  void wait() {
    signals_.async_wait([this](const std::error_code& error, int signal) {
      if (!error) caught(signal);
    });
  }

  void caught(int signal) {
    if (first_ == 0) {
      first_ = signal;
      ::sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
      log::info("stopping: signal {}", signal);
    } else {
      log::warning("stopping at once: signal {}", signal);
      // From now on a signal ends the process, whatever the engine still does.
      std::signal(signal, SIG_DFL);  // NOLINT(bugprone-signal-handler)
    }
    stop_();
    wait();
  }

  asio::signal_set signals_;
  std::function<void()> stop_;
  int first_ = 0;
};

Status serve(const Options& options, const OpenEngine& open_engine) {
  AIRLLM_TRY(Listener listener, reserve_socket(options));
  AIRLLM_TRY_VOID(make_parents(options.store_dir));
  // Outlives the engine, whose threads wake connections through it.
  asio::io_context io(1);
  AIRLLM_TRY(const std::unique_ptr<engine::Engine> engine, open_engine(engine_options(options)));
  AIRLLM_TRY(DefaultModel default_model, DefaultModel::load(options.store_dir, options.model));
  std::optional<Signals> signals;
  Server server(io, *engine, std::move(default_model), server_options(options, listener),
                [&] { io.stop(); });
  signals.emplace(io, [&] { server.stop(); });
  AIRLLM_TRY_VOID(listener.publish());
  AIRLLM_TRY_VOID(server.start(listener.fd()));
  log::info("airllmd {} listens on {}, its store is {}", kProgramVersion, listener.path(),
            options.store_dir);
  ::sd_notify(0, "READY=1\nSTATUS=Ready");
  io.run();
  // A socket that is there answers, and closing the engine may take a while.
  listener.withdraw();
  log::info("stopped");
  return {};
}

}  // namespace

int run_daemon(const std::vector<std::string>& args, const OpenEngine& open_engine) {
  prepare_process();
  auto line = parse_command_line(args, Environment::current(), Listener::activated());
  const bool wants_stderr = !line || line->options.foreground;
  log::init(line ? line->options.log_level : log::Level::kInfo,
            !wants_stderr && stderr_is_journal());
  if (!line) return report(line.error());
  if (line->print) {
    std::fputs(line->print->c_str(), stdout);
    return 0;
  }
  const Status status = serve(line->options, open_engine);
  return status ? 0 : report(status.error());
}

}  // namespace airllm::daemon

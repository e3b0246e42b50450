#include "daemon/daemon.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>
#include <thread>

#include "base/event.h"
#include "base/json.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "base/version.h"
#include "daemon/fd_store.h"
#include "daemon/idle_exit.h"
#include "daemon/journal.h"
#include "daemon/listener.h"
#include "daemon/options.h"
#include "daemon/server.h"
#include "daemon/service_manager.h"
#include "daemon/signals.h"

namespace airllm::daemon {
namespace {

int report(const Error& error) {
  log::error("{}", error.message);
  if (!error.remedy.empty()) log::error("{}", error.remedy);
  return exit_status(error.code);
}

void prepare_process() {
  std::signal(SIGPIPE, SIG_IGN);  // NOLINT(bugprone-signal-handler)
  // A fixed threshold: what one long frame took goes back to the system when it is freed. By
  // default the first one that is freed raises the threshold for all later ones.
  ::mallopt(M_MMAP_THRESHOLD, 128 * 1024);
  // Prompts and answers are in memory: no core files.
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  // Where a program takes the core despite the limit (core_pattern), it gets no memory either.
  const UniqueFd filter(::open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC));
  if (filter.valid() && ::write(filter.get(), "0", 1) != 1) {
    log::debug("{}", errno_error("/proc/self/coredump_filter", errno).message);
  }
  // Connections and the shards of many models need descriptors.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  ::umask(077);
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

Result<Listener> reserve_socket(const Options& options, std::vector<UniqueFd> passed) {
  AIRLLM_TRY(std::optional<Listener> given, Listener::from_systemd(std::move(passed)));
  if (given) return std::move(*given);
  return Listener::reserve({options.socket_path, options.default_socket, options.system});
}

// What the engine is opened with, and, for what can change, told again.
engine::EngineOptions engine_options(const Options& options) {
  engine::EngineOptions out;
  out.store_dir = options.store_dir;
  out.ram_bytes = options.ram_bytes;
  out.kv_bytes = options.kv_bytes;
  out.threads = options.threads;
  out.device = options.device;
  out.vram_bytes = options.vram_bytes.value_or(0);
  out.bus_bytes_per_second = options.bus_bytes_per_second;
  out.guards_device = options.guards_device;
  out.reader = options.reader;
  out.direct_io = options.direct_io;
  out.max_jobs = options.max_jobs;
  out.max_splits = options.max_splits;
  out.store_quota_bytes = options.store_quota_bytes;
  out.max_jobs_per_user = options.jobs_per_user();
  out.max_prompt_bytes = options.max_prompt_bytes;
  out.max_prompts_bytes = options.max_prompts_bytes;
  out.max_prompts_per_user_bytes = options.prompts_per_user_bytes();
  out.kv_per_user_bytes = options.kv_per_user_bytes;
  out.pause_timeout = std::chrono::seconds(options.send_timeout_seconds);
  out.max_logprobs = options.max_logprobs;
  out.read_timeout = std::chrono::seconds(options.read_timeout_seconds);
  out.keep_alive = options.keep_alive;
  out.keep = options.keep;
  out.debug_hang = options.debug_hang;
  return out;
}

ServerOptions server_options(const Options& options, const Listener& listener) {
  ServerOptions out;
  out.socket_path = listener.path();
  out.store_dir = options.store_dir;
  out.socket_stays = listener.is_systemds();
  out.send_buffer_bytes = options.send_buffer_bytes;
  out.max_splits_per_user = options.max_splits_per_user;
  out.split_memory_bytes = options.split_memory_bytes;
  out.admin_group = options.admin_group;
  out.sent_bytes = options.send_buffers_bytes;
  out.sent_per_user_bytes = options.send_buffers_per_user();
  out.received_bytes = options.max_prompts_bytes;
  out.received_per_user_bytes = options.prompts_per_user_bytes();
  out.connections = {options.max_connections, options.connections_per_user()};
  out.stop_timeout = std::chrono::seconds(options.stop_timeout_seconds);
  return out;
}

// Closing the engine takes milliseconds, or as long as the system needs to take memory back.
constexpr auto kClosePatience = std::chrono::seconds(20);

// Destroys the engine, which waits for its threads. One whose read hangs may never end: then the
// process ends here, all else being done.
void close_engine(std::unique_ptr<engine::Engine> engine) {
  std::promise<void> closed;
  std::future<void> is_closed = closed.get_future();
  std::thread closer([&closed, engine = std::move(engine)]() mutable {
    engine.reset();
    closed.set_value();
  });
  if (is_closed.wait_for(kClosePatience) != std::future_status::ready) {
    log::warning("stopped, but for a thread of the engine that does not come back");
    std::fflush(nullptr);
    ::_exit(EXIT_SUCCESS);
  }
  closer.join();
}

// The daemon while it runs, from the open store to the last connection. Belongs to the main thread.
class Service {
 public:
  // Borrows all but the options; `read_options` reads them again.
  Service(asio::io_context& io, engine::Engine& engine, const Listener& listener, Options options,
          DefaultModel default_model, std::function<Result<Options>()> read_options)
      : engine_(engine),
        listener_(listener),
        options_(std::move(options)),
        read_options_(std::move(read_options)),
        server_(io, engine, std::move(default_model), server_options(options_, listener),
                [&io] { io.stop(); }),
        status_(io, [this] { return describe(); }) {
    server_.on_jobs_changed([this] { status_.changed(); });
    if (!options_.exit_when_idle) return;
    idle_exit_.emplace(
        io, options_.keep_alive, [this] { return need(); }, [this] { end_idle(); });
    server_.on_clients_changed([this] { idle_exit_->used(); });
  }

  Status start() {
    AIRLLM_TRY_VOID(server_.start(listener_.fd()));
    log::event_happened(log::event::kStarted, {}, "airllmd {} listens on {}, its store is {}",
                        kProgramVersion, listener_.path(), options_.store_dir);
    tell_ready();
    status_.changed();
    return {};
  }

  // What signals ask for.
  void stop(int signal, bool at_once) {
    const size_t jobs = server_.jobs();
    if (at_once) {
      log::warning("stopping at once: signal {}", signal);
    } else {
      log::event_happened(log::event::kStopping, {},
                          "stopping: signal {}; {} jobs have {} s to finish", signal, jobs,
                          options_.stop_timeout_seconds);
    }
    status_.close();
    const std::chrono::seconds time(at_once || jobs == 0 ? 0 : options_.stop_timeout_seconds);
    tell_stopping("Stopping: " + std::to_string(jobs) + " jobs have " +
                      std::to_string(time.count()) + " s to finish",
                  time + kClosePatience + std::chrono::seconds(10));
    server_.stop();
  }

  void reload() {
    tell_reloading();
    Result<Options> options = read_options_();
    if (options) {
      options->has_other_users = options_.has_other_users;
      apply(std::move(*options));
    } else {
      log::event_happened(log::event::kSettingsWrong,
                          {{log::kErrorField, std::string(error_name(options.error().code))}},
                          "the settings stay as they were: {}", options.error().message);
    }
    tell_ready();
  }

 private:
  void apply(Options options) {
    const SettingsChange change = changed_settings(options_, options);
    log::set_level(options.log_level);
    engine_.apply(engine_options(options));
    server_.apply(server_options(options, listener_), options.model);
    if (idle_exit_) idle_exit_->set_keep_alive(options.keep_alive);
    log::event_happened(log::event::kSettingsReloaded, {}, "settings read again; changed: {}",
                        change.live.empty() ? "none" : joined(change.live));
    if (!change.need_restart.empty()) {
      log::warning("settings that only a restart can change: {}", joined(change.need_restart));
    }
    // The others stay as they are, so that the next reading names them again.
    std::swap(options.given, options_.given);
    for (const std::string& name : change.live) {
      const auto found = options.given.find(name);
      options_.given.erase(name);
      if (found != options.given.end()) options_.given.insert(*found);
    }
    options_.stop_timeout_seconds = options.stop_timeout_seconds;
  }

  IdleExit::Need need() const {
    if (server_.jobs() > 0 || server_.connections() > 0) return IdleExit::Need::kNow;
    const Json status = engine_.status({std::nullopt, true});
    const auto models = status.find("models");
    if (models != status.end() && !models->empty()) return IdleExit::Need::kNow;
    return server_.memory_given_back() ? IdleExit::Need::kNone : IdleExit::Need::kPerhaps;
  }

  void end_idle() {
    log::event_happened(log::event::kStopping, {}, "stopping: nobody needs the daemon any more");
    status_.close();
    server_.stop();
  }

  static std::string joined(const std::vector<std::string>& names) {
    std::string out;
    for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
    return out;
  }

  StatusLine::Now describe() const {
    const std::vector<engine::JobInfo> jobs = engine_.jobs();
    // Counting the models reads the store: only when there is nothing else to do.
    size_t models = 0;
    if (jobs.empty()) {
      if (const auto all = engine_.list({std::nullopt, true})) models = all->size();
    }
    return {describe_jobs(jobs, models), !jobs.empty()};
  }

  engine::Engine& engine_;
  const Listener& listener_;
  Options options_;
  const std::function<Result<Options>()> read_options_;
  Server server_;
  StatusLine status_;
  std::optional<IdleExit> idle_exit_;
};

Status serve(Options options, const std::function<Result<Options>()>& read_options,
             PassedFds passed, const OpenEngine& open_engine) {
  AIRLLM_TRY(Listener listener, reserve_socket(options, std::move(passed.sockets)));
  options.has_other_users = listener.others_may_connect();
  AIRLLM_TRY_VOID(make_parents(options.store_dir));
  // Outlives the engine, whose threads wake connections through it.
  asio::io_context io(1);
  FdStore fd_store(std::move(passed.held));
  engine::EngineOptions for_engine = engine_options(options);
  for_engine.memory_store = &fd_store;
  std::optional<Watchdog> watchdog = Watchdog::from_environment();
  if (watchdog) {
    for_engine.on_alive = [&watchdog] { watchdog->pet(); };
    for_engine.alive_interval =
        std::chrono::duration_cast<std::chrono::milliseconds>(watchdog->interval());
  }
  StartProgress start_progress;
  for_engine.on_opening = [&start_progress] { start_progress.advance(); };
  AIRLLM_TRY(std::unique_ptr<engine::Engine> engine, open_engine(for_engine));
  AIRLLM_TRY(DefaultModel default_model, DefaultModel::load(options.store_dir, options.model));
  // Outlives the service: a signal while the engine closes is no reason to die of it.
  std::optional<Signals> signals;
  {
    Service service(io, *engine, listener, options, std::move(default_model), read_options);
    signals.emplace(
        io, hangup_at_start(),
        Signals::Handlers{[&](int signal, bool at_once) { service.stop(signal, at_once); },
                          [&] { service.reload(); }});
    AIRLLM_TRY_VOID(listener.publish());
    AIRLLM_TRY_VOID(service.start());
    io.run();
  }
  // A socket that is there answers, and closing the engine may take a while.
  listener.withdraw();
  close_engine(std::move(engine));
  log::info("stopped");
  return {};
}

}  // namespace

int run_daemon(const std::vector<std::string>& args, const OpenEngine& open_engine) {
  prepare_process();
  const Environment environment = Environment::current();
  PassedFds passed = PassedFds::take();
  const bool activated = !passed.sockets.empty();
  auto line = parse_command_line(args, environment, activated);
  const bool to_journal = line && !line->options.foreground && log::stderr_is_journal();
  log::init(line ? line->options.log_level : log::Level::kInfo, to_journal);
  if (to_journal) send_events_to_journal();
  if (!line) return report(line.error());
  if (line->print) {
    std::fputs(line->print->c_str(), stdout);
    return 0;
  }
  const auto read_options = [&]() -> Result<Options> {
    AIRLLM_TRY(CommandLine again, parse_command_line(args, environment, activated));
    return std::move(again.options);
  };
  const Status status = serve(line->options, read_options, std::move(passed), open_engine);
  return status ? 0 : report(status.error());
}

}  // namespace airllm::daemon

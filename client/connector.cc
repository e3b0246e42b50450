#include "client/connector.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "client/access.h"
#include "client/socket_path.h"
#include "client/spawn.h"

namespace airllm::client {
namespace {

using Clock = Patience::Clock;

// How long a full queue is waited for at once; signals are seen to in between.
constexpr timeval kTurn{.tv_sec = 0, .tv_usec = 200'000};

Unexpected no_daemon(const std::vector<std::string>& candidates, bool is_named) {
  std::string places;
  for (const std::string& path : candidates) {
    if (!places.empty()) places += " or ";
    places += path;
  }
  const std::string start =
      is_named ? "start one: 'airllmd --foreground --socket " + candidates.front() + " &'"
               : "start one: 'airllmd --foreground &', or 'systemctl --user start airllmd'";
  return Unexpected(ErrorCode::kUnavailable, "no daemon answers at " + places,
                    start + "; or let this command start a private one: 'airllm --spawn ask ...'");
}

// What to say when none of `candidates` could be used; `failures` are theirs, in order.
Unexpected nobody_answers(const std::vector<std::string>& candidates,
                          const std::vector<Error>& failures, bool is_named) {
  const auto telling = std::find_if(failures.begin(), failures.end(), [](const Error& error) {
    return error.code != ErrorCode::kUnavailable;
  });
  if (telling == failures.end()) return no_daemon(candidates, is_named);
  std::string message;
  for (const Error& error : failures) {
    if (!message.empty()) message += "; ";
    message += error.message;
  }
  return Unexpected(telling->code, message, telling->remedy);
}

// The folder that an XDG variable names, else the one below the home folder.
std::optional<std::string> xdg_folder(const char* variable, const char* below_home) {
  const auto folder = environment(variable);
  if (folder && folder->front() == '/') return folder;
  if (const auto home = environment("HOME")) return *home + below_home;
  const passwd* const entry = getpwuid(getuid());  // NOLINT(concurrency-mt-unsafe): one thread
  if (entry == nullptr) return std::nullopt;
  return std::string(entry->pw_dir) + below_home;
}

// Where a private daemon keeps its models: not where the system's does, as root's or the system's
// settings would have it. Nothing when the user's own settings decide.
std::optional<std::string> private_store(const Globals& globals, const std::string& socket_path) {
  if (globals.store) return globals.store;
  if (const auto store = environment("AIRLLM_STORE")) return store;
  if (socket_path == kSystemSocket) return std::nullopt;
  const auto settings = xdg_folder("XDG_CONFIG_HOME", "/.config");
  const bool reads_them = geteuid() != 0 || environment("XDG_RUNTIME_DIR");
  if (reads_them && settings && access((*settings + "/airllm/airllmd.conf").c_str(), F_OK) == 0) {
    return std::nullopt;
  }
  const auto data = xdg_folder("XDG_DATA_HOME", "/.local/share");
  return data ? std::optional(*data + "/airllm") : std::nullopt;
}

// --connect-timeout, else AIRLLM_CONNECT_TIMEOUT. A daemon that --spawn starts is not waited for
// elsewhere.
Result<std::optional<Clock::duration>> connect_timeout(const Globals& globals) {
  std::optional<double> seconds = globals.connect_timeout_seconds;
  if (const auto text = environment("AIRLLM_CONNECT_TIMEOUT"); !seconds && text) {
    AIRLLM_TRY(seconds, parse_number(*text, "AIRLLM_CONNECT_TIMEOUT", kTimeoutRange));
  }
  if (!seconds && globals.spawn) seconds = 0;
  if (!seconds) return std::optional<Clock::duration>();
  const std::chrono::duration<double> timeout(*seconds);
  return std::optional(std::chrono::duration_cast<Clock::duration>(timeout));
}

Error connect_error(const std::string& path, int error) {
  if (error == EACCES || error == EPERM) return explain_denial(path);
  Error failure = errno_error("cannot connect to " + path, error);
  if (error == ENOENT || error == ECONNREFUSED || error == ENOTDIR) {
    failure.code = ErrorCode::kUnavailable;
  } else if (error == EAGAIN) {
    failure = {ErrorCode::kUnavailable,
               "the daemon at " + path + " takes no connection: as many as fit are waiting",
               "try again later, or give --connect-timeout"};
  } else if (error == ENAMETOOLONG) {
    failure = {ErrorCode::kUsage,
               "the socket path '" + path + "' has " + std::to_string(path.size()) +
                   " bytes; a Unix socket's path has 1 to " +
                   std::to_string(sizeof sockaddr_un{}.sun_path - 1) + " bytes",
               "choose a shorter path for the daemon's --socket and for ours"};
  }
  return failure;
}

}  // namespace

Attempt try_connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return {UniqueFd(), ENAMETOOLONG};
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return {UniqueFd(), errno};
  const auto connect = [&] {
    int result = 0;
    do {
      result = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
  };
  int error = connect();
  if (error == EAGAIN) {
    // In the line of those who wait: who only tries from time to time is overtaken by all of them.
    if (::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kTurn, sizeof kTurn) != 0 ||
        ::fcntl(socket.get(), F_SETFL, 0) != 0) {
      return {UniqueFd(), errno};
    }
    error = connect();
    if (error == 0 && ::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0) error = errno;
  }
  if (error != 0) return {UniqueFd(), error};
  return {std::move(socket), 0};
}

Result<UniqueFd> connect_socket(const std::string& path) {
  Attempt attempt = try_connect(path);
  if (attempt.error == 0) return std::move(attempt.socket);
  return Unexpected(connect_error(path, attempt.error));
}

// What came of all candidates when none took the connection.
struct Connector::Absence {
  std::vector<Error> failures;  // theirs, in order
  Outlook outlook = Outlook::kNobodyExpected;
  std::string reason;  // for the notice
};

Connector::Connector(const Globals& globals, Patience patience)
    : globals_(globals),
      candidates_(socket_candidates(globals)),
      is_named_(named_socket(globals).has_value()),
      patience_(patience) {}

Result<Connector> Connector::create(const Globals& globals) {
  if (globals.store && !globals.spawn) {
    return Unexpected(ErrorCode::kUsage, "--store is for the daemon that --spawn starts",
                      "a daemon that runs has its own store; see 'airllm status'");
  }
  AIRLLM_TRY(const std::optional<Clock::duration> asked, connect_timeout(globals));
  return Connector(globals, Patience(asked));
}

std::optional<Connector::Found> Connector::try_candidates(Absence& absence) {
  for (const std::string& path : candidates_) {
    Attempt attempt = try_connect(path);
    if (attempt.error == 0) return Found{std::move(attempt.socket), path};
    absence.failures.push_back(connect_error(path, attempt.error));
    if (attempt.error == ECONNREFUSED || attempt.error == EAGAIN) {
      absence.outlook = Outlook::kRestarting;
      absence.reason = "the daemon at " + path + " does not answer yet";
    }
  }
  return std::nullopt;
}

Result<Connector::Found> Connector::connect() {
  for (;;) {
    Absence absence;
    absence.reason = no_daemon(candidates_, is_named_).error().message;
    if (std::optional<Found> found = try_candidates(absence)) return std::move(*found);
    const std::vector<Error>& failures = absence.failures;
    const auto is_absence = [](const Error& e) { return e.code == ErrorCode::kUnavailable; };
    // What cannot be used for another reason than that nobody answers, no new daemon can use
    // either.
    const bool may_spawn = globals_.spawn && is_absence(failures.front());
    const bool may_come = std::all_of(failures.begin(), failures.end(), is_absence);
    if (may_spawn || may_come) {
      AIRLLM_TRY(const bool again, patience_.wait(absence.outlook, absence.reason));
      if (again) continue;
    }
    return may_spawn ? spawn() : nobody_answers(candidates_, failures, is_named_);
  }
}

Result<Connector::Found> Connector::spawn() {
  const std::optional<NamedSocket> named = named_socket(globals_);
  std::string path = named ? named->path : user_socket_path();
  AIRLLM_TRY(UniqueFd socket, spawn_daemon(path, private_store(globals_, path)));
  return Found{std::move(socket), std::move(path)};
}

Status Connector::wait_after(const Error& why) {
  AIRLLM_TRY(const bool again, patience_.wait(Outlook::kRestarting, why.message));
  return again ? Status() : Status(Unexpected(why));
}

}  // namespace airllm::client

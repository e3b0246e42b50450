#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "base/json.h"
#include "base/version.h"
#include "client/access.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/diagnosis.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/service_state.h"
#include "client/session.h"
#include "client/socket_path.h"
#include "client/spawn.h"
#include "client/table.h"

namespace airllm::client {
namespace {

// How long a daemon may take to greet before it counts as absent, when the user does not say.
constexpr double kGreetingSeconds = 3;
// A model of 10 GB needs more than a minute for each token from a slower disk.
constexpr double kSlowDiskBytesPerSecond = 150e6;

struct DoctorOptions {
  Globals globals;
  std::optional<std::string> model;
  bool no_disk = false;
};

// A place where a daemon is looked for, and what is there.
struct Place {
  std::string path;
  std::string whose;  // "from --socket", "yours", "the system's"
  int error = 0;      // of a connection
};

bool is_denied(const Place& place) { return place.error == EACCES || place.error == EPERM; }

std::vector<Place> look_at_sockets(const Globals& globals) {
  const auto named = named_socket(globals);
  std::vector<Place> places;
  for (const std::string& path : socket_candidates(globals)) {
    const std::string whose = named                   ? "from " + named->source
                              : path == kSystemSocket ? "the system's"
                                                      : "yours";
    places.push_back({path, whose, try_connect(path).error});
    if (places.back().error == 0) break;  // the others are not looked at by any command
  }
  return places;
}

std::string describe(const Place& place) {
  std::string text = place.path + " (" + place.whose + ")";
  struct stat status {};
  if (stat(place.path.c_str(), &status) != 0) {
    return text + (is_denied(place) ? " is closed to user " + user_name() : " is not there");
  }
  std::array<char, 16> mode{};
  std::snprintf(mode.data(), mode.size(), "%04o", status.st_mode & 07777U);
  text += ", mode " + std::string(mode.data());
  if (is_denied(place)) return text + ", is closed to user " + user_name();
  return place.error == 0 ? text : text + ": nobody answers";
}

std::string describe(const std::vector<Place>& places) {
  std::string text;
  for (auto place = places.rbegin(); place != places.rend(); ++place) {
    text += (text.empty() ? "" : "; ") + describe(*place);
  }
  return text;
}

// The group that decides about the socket in question; only told where it does.
void check_group(const Place& place, Diagnosis& diagnosis) {
  const std::optional<SocketGroup> group = socket_group(place.path);
  if (!group) return;
  if (group->membership == Membership::kMember) {
    return diagnosis.ok("group", "user " + user_name() + " is in group " + group->name);
  }
  if (place.error == 0) return;  // its owner, or root
  const bool needs_login = group->membership == Membership::kNeedsLogin;
  diagnosis.warning(
      "group",
      "user " + user_name() +
          (needs_login ? " is in group " + group->name + ", but this login began before that"
                       : " is not in group " + group->name),
      join_group_remedy(*group));
}

// Why no command finds a daemon now.
Error absence(Globals globals) {
  globals.connect_timeout_seconds = 0;
  globals.spawn = false;
  const Result<Connection> connection = Connection::open(globals);
  if (!connection) return connection.error();
  return {ErrorCode::kTemporary, "a daemon began to answer just now", "give the command again"};
}

// Which socket a command would use. False when none can be.
bool check_sockets(const std::vector<Place>& places, const Globals& globals, Diagnosis& diagnosis) {
  const bool answers = places.back().error == 0;
  if (answers) {
    diagnosis.ok("socket", describe(places));
  } else {
    Error error = absence(globals);
    if (error.code == ErrorCode::kUnavailable) error.message = describe(places);
    diagnosis.problem("socket", error);
    if (error.code == ErrorCode::kNoPermission) return false;  // which says it of the group
  }
  check_group(places.back(), diagnosis);
  return answers;
}

void check_service(Manager manager, bool daemon_answers, Diagnosis& diagnosis) {
  const std::optional<ServiceState> state = service_state(manager);
  if (!state) return;
  const bool is_user = manager == Manager::kUser;
  const std::string name = is_user ? "user_service" : "service";
  const std::string control = is_user ? "systemctl --user " : "sudo systemctl ";
  const std::string message =
      "airllmd.socket is " + state->socket + ", airllmd.service is " + state->service;
  if (state->service == "failed" || state->socket == "failed") {
    diagnosis.warning(
        name, message,
        std::string(is_user ? "journalctl --user -u airllmd -e" : "journalctl -u airllmd -e") +
            "; then: " + control + "restart airllmd.socket");
  } else if (!daemon_answers && state->socket != "active" && state->service != "active") {
    diagnosis.warning(name, message, control + "enable --now airllmd.socket");
  } else {
    diagnosis.ok(name, message);
  }
}

void check_program(Diagnosis& diagnosis) {
  const std::string program = find_daemon();
  if (!program.empty()) return diagnosis.ok("program", program + " can be started");
  diagnosis.warning("program", "airllmd is neither beside airllm nor on PATH",
                    "install the daemon's package (airllm-daemon), or put its folder on PATH");
}

void check_versions(const Connection& connection, Diagnosis& diagnosis) {
  const protocol::Hello& hello = connection.daemon_hello();
  const std::string message = hello.program + " answers (process " + std::to_string(hello.pid) +
                              "), version " + std::to_string(hello.version) + " of the protocol";
  if (hello.program == std::string("airllmd ") + kProgramVersion) {
    return diagnosis.ok("daemon", message);
  }
  diagnosis.warning("daemon", message + "; this is airllm " + kProgramVersion,
                    "install the same release of both, and restart the daemon");
}

Result<Json> request(Connection& connection, const protocol::Params& params) {
  AIRLLM_TRY(const std::string text, simple_request(connection, params));
  return parse_result(text);
}

void check_daemon_side(Connection& connection, Diagnosis& diagnosis) {
  const Result<Json> result = request(connection, protocol::DoctorParams{});
  if (!result) {
    return diagnosis.warning("checks", "the daemon does not say more: " + result.error().message,
                             result.error().remedy);
  }
  if (result->is_object()) diagnosis.add(result->value("checks", Json::array()));
}

// Whether `ask` would find a model.
void check_model(Connection& connection, const std::optional<std::string>& option,
                 Diagnosis& diagnosis) {
  const Result<std::optional<ChosenModel>> chosen = choose_model(option);
  if (!chosen) return diagnosis.problem("model", chosen.error());
  protocol::ShowParams params;
  std::string source = "the daemon's choice";
  if (*chosen) {
    params.model = (*chosen)->name;
    source = "from " + (*chosen)->source;
  }
  const Result<Json> shown = request(connection, params);
  if (!shown) {
    Error error = shown.error();
    error.message += " (" + source + ")";
    return diagnosis.problem("model", error);
  }
  diagnosis.ok("model", cell(*shown, "name") + " (" + source + ") can be asked");
}

double number(const Json& object, const char* key) {
  const Json value = object.is_object() ? object.value(key, Json()) : Json();
  return value.is_number() ? value.get<double>() : 0;
}

void check_disk(Connection& connection, Diagnosis& diagnosis) {
  const Result<Json> result = request(connection, protocol::MeasureDiskParams{});
  if (!result) {
    const Error& error = result.error();
    return diagnosis.warning(
        "disk", error.message,
        error.remedy.empty() ? "look at what the check 'store' says" : error.remedy);
  }
  const double bytes = number(*result, "bytes");
  const double seconds = number(*result, "seconds");
  if (bytes <= 0 || seconds <= 0) {
    return diagnosis.warning("disk", "the daemon read nothing", "install the same release of both");
  }
  std::array<char, 64> rate{};
  std::snprintf(rate.data(), rate.size(), "%.2f GB/s", bytes / seconds / 1e9);
  const bool direct = result->value("direct", Json(true)) == Json(true);
  const std::string message = std::string(rate.data()) + " with one reader (" +
                              cell(*result, "bytes") + " of " + cell(*result, "path") + ")" +
                              (direct ? "" : ", maybe from memory: no direct reads there");
  if (bytes / seconds >= kSlowDiskBytesPerSecond) return diagnosis.ok("disk", message);
  diagnosis.warning("disk", message, "put the store on a faster disk: airllmd --store DIR");
}

void check_daemon(const DoctorOptions& options, Diagnosis& diagnosis) {
  Globals globals = options.globals;
  if (!globals.connect_timeout_seconds) globals.connect_timeout_seconds = kGreetingSeconds;
  Result<Connection> connection = Connection::open(globals);
  if (!connection) return diagnosis.problem("daemon", connection.error());
  check_versions(*connection, diagnosis);
  check_daemon_side(*connection, diagnosis);
  check_model(*connection, options.model, diagnosis);
  if (!options.no_disk) check_disk(*connection, diagnosis);
}

Diagnosis diagnose(const DoctorOptions& options) {
  Diagnosis diagnosis;
  const bool answers = check_sockets(look_at_sockets(options.globals), options.globals, diagnosis);
  check_service(Manager::kSystem, answers, diagnosis);
  check_service(Manager::kUser, answers, diagnosis);
  if (answers) {
    check_daemon(options, diagnosis);
  } else {
    check_program(diagnosis);
  }
  return diagnosis;
}

}  // namespace

Result<int> run_doctor(const Invocation& call) {
  DoctorOptions options;
  options.globals = call.globals;
  ArgParser parser("airllm doctor",
                   "Check whether asking works, and say what to do where something is wrong.");
  parser.text("-m,--model", options.model, "MODEL", "The model that 'ask' would be given");
  parser.flag("--no-disk", options.no_disk, "Do not measure how fast the store's disk reads");
  parser.add_globals(options.globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  if (options.globals.spawn) {
    // The daemon that the checks are about.
    AIRLLM_TRY([[maybe_unused]] const Connection started, Connection::open(options.globals));
    options.globals.spawn = false;
    options.globals.store.reset();
  }
  const Diagnosis diagnosis = diagnose(options);
  AIRLLM_TRY_VOID(print_out(options.globals.json ? json_for_stdout(diagnosis.json()) + "\n"
                                                 : diagnosis.text()));
  return diagnosis.exit_status();
}

}  // namespace airllm::client

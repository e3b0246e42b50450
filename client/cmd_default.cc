#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {
namespace {

struct DefaultOptions {
  Globals globals;
  std::vector<std::string> model;
  bool unset = false;
  bool daemon = false;
};

Status show_default(const DefaultOptions& options, const std::optional<ChosenModel>& chosen) {
  if (options.globals.json) {
    const Json result{{"model", chosen ? Json(chosen->name) : Json()},
                      {"source", chosen ? Json(chosen->source) : Json()}};
    return print_out(json_for_stdout(result) + "\n");
  }
  if (chosen) {
    return print_out(name_on_stdout(chosen->name) + " (from " + name_on_stdout(chosen->source) +
                     ")\n");
  }
  print_err("no default model is set; set yours: airllm default MODEL\n");
  return {};
}

// What the daemon answers: {"model": "NAME" or ""}.
Result<std::optional<ChosenModel>> ask_daemon(const Globals& globals,
                                              std::optional<std::string> model) {
  using Chosen = std::optional<ChosenModel>;
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  AIRLLM_TRY(const std::string text,
             simple_request(connection, protocol::DefaultParams{std::move(model)}));
  AIRLLM_TRY(const Json result, parse_result(text));
  const Json name = result.is_object() ? result.value("model", Json()) : result;
  if (!name.is_string() || name == Json("")) return Chosen();
  return Chosen(ChosenModel{name.get<std::string>(), "the daemon at " + connection.name()});
}

Status run_daemon_default(const DefaultOptions& options) {
  std::optional<std::string> model;
  if (options.unset) model = "";
  if (!options.model.empty()) model = options.model.front();
  AIRLLM_TRY(const std::optional<ChosenModel> chosen, ask_daemon(options.globals, model));
  if (options.unset && !options.globals.json) return {};
  return show_default(options, chosen);
}

// A model may be made later, and a daemon need not run: only what a daemon says for sure is told.
void warn_if_unknown(Globals globals, const std::string& model) {
  globals.spawn = false;
  globals.store.reset();
  if (!globals.connect_timeout_seconds) globals.connect_timeout_seconds = 0;
  Result<Connection> connection = Connection::open(globals);
  if (!connection) return;
  protocol::ShowParams params;
  params.model = model;
  const Result<std::string> shown = simple_request(*connection, params);
  if (shown || shown.error().code != ErrorCode::kNoInput) return;
  Error warning = shown.error();
  warning.message = "your default is set, but " + warning.message;
  print_error(warning);
}

Status run_user_default(const DefaultOptions& options) {
  if (options.unset) {
    AIRLLM_TRY_VOID(with_remedy(remove_model_setting(), "remove the file yourself"));
  }
  if (!options.model.empty()) {
    AIRLLM_TRY_VOID(with_remedy(write_model_setting(options.model.front()),
                                "name the model with AIRLLM_MODEL or -m instead"));
    warn_if_unknown(options.globals, options.model.front());
  }
  if ((options.unset || !options.model.empty()) && !options.globals.json) return {};
  AIRLLM_TRY(std::optional<ChosenModel> chosen, choose_model({}));
  if (!chosen && !options.unset) {
    // The daemon's own default counts last; without a daemon there is none.
    Globals globals = options.globals;
    if (!globals.connect_timeout_seconds) globals.connect_timeout_seconds = 0;
    if (auto daemons = ask_daemon(globals, {})) chosen = *daemons;
  }
  return show_default(options, chosen);
}

}  // namespace

Result<int> run_default(const Invocation& call) {
  DefaultOptions options;
  options.globals = call.globals;
  ArgParser parser("airllm default",
                   "Show the model that is asked when none is named, and where that comes from; or "
                   "set yours.");
  parser.usage("airllm default [OPTIONS] [MODEL]");
  parser.words("MODEL", options.model, 0, 1, "The model");
  parser.flag("--unset", options.unset, "Remove the setting");
  parser.flag("--daemon", options.daemon, "The daemon's setting, for all its users");
  parser.add_globals(options.globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  if (options.unset && !options.model.empty()) {
    return Unexpected(ErrorCode::kUsage, "--unset takes no MODEL", "leave one of the two out");
  }
  for (const std::string& name : options.model) AIRLLM_TRY_VOID(check_model_name(name));
  AIRLLM_TRY_VOID(options.daemon ? run_daemon_default(options) : run_user_default(options));
  return 0;
}

}  // namespace airllm::client

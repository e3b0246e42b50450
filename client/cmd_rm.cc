#include <limits>

#include "base/json.h"
#include "client/command.h"
#include "client/confirm.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"

namespace airllm::client {
namespace {

std::string question(const std::vector<std::string>& names) {
  std::string text = "Remove";
  for (const std::string& name : names) text += " " + shown_on_stderr(name);
  return text + "?";
}

}  // namespace

Result<int> run_rm(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> names;
  bool yes = false;
  ArgParser parser("airllm rm", "Remove models from the store.");
  parser.usage("airllm rm [OPTIONS] MODEL...");
  parser.words("MODEL", names, 1, std::numeric_limits<size_t>::max(), "The models");
  parser.flag("-y,--yes", yes, "Do not ask (only a terminal is asked)");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  for (const std::string& name : names) AIRLLM_TRY_VOID(check_model_name(name));
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  if (!yes && can_ask() && !confirm(question(names))) {
    return Unexpected(ErrorCode::kCancelled, "nothing was removed");
  }
  const Status removed = run_each(names, "removed", [&](const std::string& name) -> Status {
    protocol::RemoveParams params;
    params.model = name;
    AIRLLM_TRY_VOID(simple_request(connection, params));
    return {};
  });
  AIRLLM_TRY_VOID(removed);
  if (globals.json) {
    AIRLLM_TRY_VOID(print_out(json_for_stdout(Json{{"removed", names}}) + "\n"));
  }
  return 0;
}

}  // namespace airllm::client

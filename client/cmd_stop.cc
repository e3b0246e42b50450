#include <limits>

#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {
namespace {

std::string describe(const std::string& name, const Json& result) {
  const bool was_in_memory =
      result.is_object() && result.value("was_in_memory", Json()) == Json(true);
  if (!was_in_memory) return name + ": was not in memory\n";
  return name + ": " + cell(result, "freed_bytes") + " given back\n";
}

}  // namespace

Result<int> run_stop(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> names;
  ArgParser parser("airllm stop", "Give the memory of idle models back at once.");
  parser.usage("airllm stop [OPTIONS] MODEL...");
  parser.words("MODEL", names, 1, std::numeric_limits<size_t>::max(), "The models");
  parser.epilogue(
      "To stop a job: airllm cancel JOB. To stop the daemon: systemctl --user stop airllmd, or end "
      "the process that 'airllm status' names.");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  for (const std::string& name : names) AIRLLM_TRY_VOID(check_model_name(name));
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  Json stopped = Json::array();
  const Status status = run_each(names, "stopped", [&](const std::string& name) -> Status {
    protocol::StopParams params;
    params.model = name;
    AIRLLM_TRY(const std::string text, simple_request(connection, params));
    AIRLLM_TRY(Json result, parse_result(text));
    if (!globals.json) AIRLLM_TRY_VOID(print_out(describe(name, result)));
    stopped.push_back(std::move(result));
    return {};
  });
  AIRLLM_TRY_VOID(status);
  if (globals.json) {
    AIRLLM_TRY_VOID(print_out(json_for_stdout(Json{{"stopped", stopped}}) + "\n"));
  }
  return 0;
}

}  // namespace airllm::client

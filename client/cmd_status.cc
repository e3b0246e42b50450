#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {

Result<int> run_status(const Invocation& call) {
  Globals globals = call.globals;
  ArgParser parser("airllm status", "Show the daemon's memory, device and models.");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  AIRLLM_TRY(const std::string result, simple_request(connection, protocol::StatusParams{}));
  AIRLLM_TRY(const Json status, parse_result(result));
  AIRLLM_TRY_VOID(globals.json ? print_result_json(result) : print_out(format_object(status)));
  return 0;
}

}  // namespace airllm::client

#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {

Result<int> run_share(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> names;
  ArgParser parser("airllm share", "Let all users of the daemon see a model of yours.");
  parser.usage("airllm share [OPTIONS] MODEL");
  parser.words("MODEL", names, 1, 1, "The model");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  AIRLLM_TRY_VOID(check_model_name(names.front()));
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  protocol::ShareParams params;
  params.model = names.front();
  AIRLLM_TRY(const std::string text, simple_request(connection, params));
  AIRLLM_TRY(const Json result, parse_result(text));
  const bool unchanged = result.is_object() && result.value("unchanged", Json()) == Json(true);
  AIRLLM_TRY_VOID(globals.json ? print_result_json(text)
                               : print_out(cell(result, "name") +
                                           (unchanged ? ": shared already\n" : ": shared\n")));
  return 0;
}

}  // namespace airllm::client

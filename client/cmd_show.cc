#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {

Result<int> run_show(const Invocation& call) {
  Globals globals = call.globals;
  std::vector<std::string> names;
  std::optional<std::string> option;
  ArgParser parser("airllm show", "Show all that is known of a model.");
  parser.usage("airllm show [OPTIONS] [MODEL]");
  parser.words("MODEL", names, 0, 1, "The model; without it the one that 'ask' would take");
  parser.text("-m,--model", option, "MODEL", "The same");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call.args));
  if (!go) return 0;
  if (!names.empty()) option = names.front();
  protocol::ShowParams params;
  AIRLLM_TRY(params.model, choose_model_name(option));
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  AIRLLM_TRY(const std::string result, simple_request(connection, std::move(params)));
  AIRLLM_TRY(const Json model, parse_result(result));
  AIRLLM_TRY_VOID(globals.json ? print_result_json(result) : print_out(format_object(model)));
  return 0;
}

}  // namespace airllm::client

#include <string>

#include "base/json.h"
#include "base/version.h"
#include "client/command.h"
#include "client/output.h"
#include "protocol/messages.h"

namespace airllm::client {

Result<int> run_version(const Invocation& call) {
  Globals globals = call.globals;
  ArgParser parser("airllm version", "Show the version of this program.");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  if (globals.json) {
    const Json version{{"program", "airllm"},
                       {"version", kProgramVersion},
                       {"protocol", protocol::kProtocolVersion}};
    AIRLLM_TRY_VOID(print_out(json_for_stdout(version) + "\n"));
  } else {
    AIRLLM_TRY_VOID(print_out(std::string("airllm ") + kProgramVersion + "\n"));
  }
  return 0;
}

}  // namespace airllm::client

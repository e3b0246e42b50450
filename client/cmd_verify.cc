#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {

Result<int> run_verify(const Invocation& invocation) {
  AIRLLM_TRY(
      const std::optional<ModelCall> call,
      parse_model_call(invocation, "verify", "Read all of a model and check its checksums."));
  if (!call) return 0;
  protocol::VerifyParams params;
  params.model = call->model();
  params.opens_files = true;
  AIRLLM_TRY(Connection connection, Connection::open(call->globals));
  const Result<std::string> answer = simple_request(connection, params);
  if (!answer) return Unexpected(with_source_of_name(answer.error(), call->chosen));
  const std::string& result = *answer;
  AIRLLM_TRY(const Json verified, parse_result(result));
  AIRLLM_TRY_VOID(call->globals.json
                      ? print_result_json(result)
                      : print_out(cell(verified, "name") + ": " + cell(verified, "shards") +
                                  " shards, " + cell(verified, "bytes") +
                                  ", every checksum is right\n"));
  return 0;
}

}  // namespace airllm::client

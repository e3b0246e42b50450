#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {
namespace {

std::string name_cell(const Json& model) {
  std::string name = cell(model, "name");
  if (model.is_object() && model.value("complete", Json(true)) == Json(false)) {
    name += " (unfinished)";
  }
  if (model.is_object() && model.contains("problem")) name += " (damaged)";
  return name;
}

// What the store holds, and what is read where it lies.
std::string size_cell(const Json& model) {
  const bool in_place = model.is_object() && model.value("in_place", Json()).is_string();
  return cell(model, "bytes") +
         (in_place ? " + " + cell(model, "elsewhere_bytes") + " in place" : "");
}

std::string format_models(const Json& models) {
  std::vector<std::vector<std::string>> rows{
      {"NAME", "SIZE", "LAYERS", "DTYPE", "OWNER", "SHARED", "CREATED"}};
  for (const Json& model : models) {
    rows.push_back({name_cell(model), size_cell(model), cell(model, "layers"), cell(model, "dtype"),
                    cell(model, "owner"), cell(model, "shared"), cell(model, "created")});
  }
  return format_table(rows);
}

}  // namespace

Result<int> run_list(const Invocation& call) {
  Globals globals = call.globals;
  ArgParser parser("airllm list", "List the models of the store.");
  parser.add_globals(globals);
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  AIRLLM_TRY(Connection connection, Connection::open(globals));
  AIRLLM_TRY(const std::string result, simple_request(connection, protocol::ListParams{}));
  AIRLLM_TRY(const Json models, parse_result(result));
  if (globals.json) {
    AIRLLM_TRY_VOID(print_result_json(result));
  } else if (models.empty()) {
    if (stderr_is_terminal()) print_err("the store has no models; make one: airllm split DIR\n");
  } else {
    AIRLLM_TRY_VOID(print_out(format_models(models)));
  }
  return 0;
}

}  // namespace airllm::client

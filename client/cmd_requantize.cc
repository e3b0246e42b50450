#include "base/json.h"
#include "client/command.h"
#include "client/connection.h"
#include "client/model_setting.h"
#include "client/new_model.h"
#include "client/output.h"
#include "client/session.h"
#include "client/table.h"

namespace airllm::client {
namespace {

struct Options {
  Globals globals;
  std::vector<std::string> words;  // the model
  NewModelOptions made;
};

Result<bool> parse_options(const Invocation& call, Options& options) {
  options.globals = call.globals;
  ArgParser parser("airllm requantize",
                   "Make a model whose weights are compressed, or compressed differently, of one "
                   "of the store that has them as they came. Given again, goes on where it "
                   "stopped.");
  parser.usage("airllm requantize [OPTIONS] MODEL");
  parser.words("MODEL", options.words, 1, 1, "The model that it is made of, which stays");
  options.made.add_to(parser, "The new model's name; without it MODEL and the format: tiny-q4");
  parser.add_globals(options.globals);
  return parser.parse(call);
}

// "tiny-q4", "tiny-q4-outliers".
std::string name_of(const std::string& model, const Options& options, const std::string& format) {
  return model + "-" + format.substr(0, format.find(',')) +
         (options.made.outliers ? "-outliers" : "");
}

}  // namespace

Result<int> run_requantize(const Invocation& call) {
  Options options;
  AIRLLM_TRY(const bool go, parse_options(call, options));
  if (!go) return 0;
  AIRLLM_TRY_VOID(options.made.check());
  const std::string& model = options.words.front();
  AIRLLM_TRY_VOID(check_model_name(model));
  protocol::SplitParams params;
  options.made.fill(params);
  if (params.format.empty()) {
    return Unexpected(ErrorCode::kUsage, "neither --bits nor --format says how",
                      "give one of the two, such as --bits 4");
  }
  params.from_model = model;
  if (params.name.empty()) params.name = name_of(model, options, params.format);
  AIRLLM_TRY(Connection connection, Connection::open(options.globals));
  AIRLLM_TRY(const std::string text, simple_request(connection, params));
  AIRLLM_TRY(const Json result, parse_result(text));
  AIRLLM_TRY_VOID(options.globals.json ? print_result_json(text)
                                       : print_out(new_model_summary(result)));
  return 0;
}

}  // namespace airllm::client

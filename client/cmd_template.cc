#include "base/json.h"
#include "client/command.h"
#include "client/text_call.h"

namespace airllm::client {

Result<int> run_template(const Invocation& invocation) {
  TextCall call;
  call.globals = invocation.globals;
  protocol::TemplateParams params;
  ArgParser parser("airllm template",
                   "Print the prompt that a model's chat template makes of messages.");
  parser.usage("airllm template [OPTIONS] [JSON]");
  add_text_options(parser, call, "JSON", 1,
                   "The conversation, else on standard input: a list of messages, as in "
                   "[{\"role\": \"user\", \"content\": \"Hi\"}], or an object with \"messages\", "
                   "\"tools\", \"documents\" and further variables of the template");
  parser.flag("--no-generation-prompt", params.no_generation_prompt,
              "Without the beginning of the answer");
  AIRLLM_TRY(const bool go, parser.parse(invocation));
  if (!go) return 0;
  AIRLLM_TRY_VOID(read_text_call(call, "template"));
  // So that what is malformed is told without a daemon.
  AIRLLM_TRY_VOID(parse_json(call.input, call.words.empty() ? "standard input" : "JSON"));
  params.input_json = std::move(call.input);
  params.model = call.model_name();
  AIRLLM_TRY_VOID(print_text_answer(call, params));
  return 0;
}

}  // namespace airllm::client

#include <limits>

#include "client/command.h"
#include "client/prompt.h"
#include "client/text_call.h"

namespace airllm::client {
namespace {

// A list as JSON and Python write it is a list, too.
std::string_view without_brackets(std::string_view text) {
  const std::string_view list = without_blanks_around(text);
  if (!list.starts_with('[') || !list.ends_with(']')) return text;
  return list.substr(1, list.size() - 2);
}

}  // namespace

Result<int> run_detokenize(const Invocation& invocation) {
  TextCall call;
  call.globals = invocation.globals;
  protocol::DetokenizeParams params;
  ArgParser parser("airllm detokenize", "Print the text of token ids, exactly.");
  parser.usage("airllm detokenize [OPTIONS] [ID...]");
  add_text_options(parser, call, "ID", std::numeric_limits<size_t>::max(),
                   "Token ids, with white space or commas between them; without any, those on "
                   "standard input");
  parser.flag("--skip-special", params.skip_special, "Leave out special tokens such as <s>");
  AIRLLM_TRY(const bool go, parser.parse(invocation));
  if (!go) return 0;
  AIRLLM_TRY_VOID(read_text_call(call, "detokenize"));
  AIRLLM_TRY(params.ids, parse_token_ids(without_brackets(call.input),
                                         call.words.empty() ? "standard input" : "ID"));
  params.model = call.model_name();
  AIRLLM_TRY_VOID(print_text_answer(call, params));
  return 0;
}

}  // namespace airllm::client

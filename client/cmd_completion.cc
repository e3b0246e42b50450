#include "client/command.h"
#include "client/completion.h"
#include "client/output.h"

namespace airllm::client {
namespace {

Result<ProgramInfo> describe_program() {
  ProgramInfo program;
  AIRLLM_TRY(program.top_level, describe_top_level());
  for (const Command& command : commands()) {
    AIRLLM_TRY(ParserInfo parser, describe(command));
    program.commands.push_back(
        {std::string(command.name), std::string(command.summary), std::move(parser)});
  }
  return program;
}

}  // namespace

Result<int> run_completion(const Invocation& call) {
  std::vector<std::string> shell;
  ArgParser parser("airllm completion",
                   "Print a script that completes command lines of airllm in a shell.");
  parser.usage("airllm completion bash|zsh|fish");
  parser.words("SHELL", shell, 1, 1, "bash, zsh or fish");
  AIRLLM_TRY(const bool go, parser.parse(call));
  if (!go) return 0;
  AIRLLM_TRY(const ProgramInfo program, describe_program());
  if (shell.front() == "bash") {
    AIRLLM_TRY_VOID(print_out(bash_completion(program)));
  } else if (shell.front() == "zsh") {
    AIRLLM_TRY_VOID(print_out(zsh_completion(program)));
  } else if (shell.front() == "fish") {
    AIRLLM_TRY_VOID(print_out(fish_completion(program)));
  } else {
    return Unexpected(ErrorCode::kUsage, "there is no completion for '" + shell.front() + "'",
                      "name one of these shells: bash, zsh, fish");
  }
  return 0;
}

}  // namespace airllm::client

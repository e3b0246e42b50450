// The subcommands of `airllm`: one function each, in a file of its own.
//
// Each parses its arguments (ArgParser), does its work, prints its result, and gives the exit
// status. An error that it returns is printed by run_command_line(), as JSON with --json.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "client/args.h"

namespace airllm::client {

struct Command {
  std::string_view name;
  std::string_view summary;
  Result<int> (*run)(const Invocation& call);
};

Result<int> run_ask(const Invocation& call);
Result<int> run_bench(const Invocation& call);
Result<int> run_cancel(const Invocation& call);
Result<int> run_completion(const Invocation& call);
Result<int> run_default(const Invocation& call);
Result<int> run_detokenize(const Invocation& call);
Result<int> run_doctor(const Invocation& call);
Result<int> run_list(const Invocation& call);
Result<int> run_ps(const Invocation& call);
Result<int> run_rm(const Invocation& call);
Result<int> run_share(const Invocation& call);
Result<int> run_show(const Invocation& call);
Result<int> run_requantize(const Invocation& call);
Result<int> run_split(const Invocation& call);
Result<int> run_status(const Invocation& call);
Result<int> run_stop(const Invocation& call);
Result<int> run_template(const Invocation& call);
Result<int> run_tokenize(const Invocation& call);
Result<int> run_verify(const Invocation& call);
Result<int> run_version(const Invocation& call);

// All subcommands, in the order of the help.
std::span<const Command> commands();
// What a subcommand takes, and what `airllm` takes before one. Nothing else is done.
Result<ParserInfo> describe(const Command& command);
Result<ParserInfo> describe_top_level();

// Runs `airllm ARGS...`: finds the subcommand, runs it, reports its error. The exit status.
int run_command_line(const std::vector<std::string>& args);

// What to say about a word that is no subcommand: our equivalent of what other programs call it, or
// names that are near.
Error unknown_command(const std::string& word);

}  // namespace airllm::client

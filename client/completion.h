// Scripts that complete command lines of `airllm` in a shell, made from the table of subcommands
// and from what their parsers say they take: nothing about an option is written twice.
//
// The scripts run with every press of a key and on whatever stands on the line: they run nothing of
// it, and names that the daemon sends are taken only if they are plain.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "client/args.h"

namespace airllm::client {

struct CommandInfo {
  std::string name;
  std::string summary;
  ParserInfo parser;
};

// All that a script is made of.
struct ProgramInfo {
  ParserInfo top_level;  // before the command
  std::vector<CommandInfo> commands;
};

// How a value is completed.
enum class ValueKind {
  kFree,  // not at all
  kModel,
  kJob,
  kFile,
  kFolder,
};

// By the name of the value in the help: "MODEL", "DIR", ...
ValueKind value_kind(std::string_view name);

std::string bash_completion(const ProgramInfo& program);
std::string zsh_completion(const ProgramInfo& program);
std::string fish_completion(const ProgramInfo& program);

// `text` as one word of a shell: in single quotes.
std::string shell_quoted(std::string_view text);

}  // namespace airllm::client

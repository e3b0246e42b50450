// The script for fish: one `complete` for each option of each command.
#include "client/completion.h"

namespace airllm::client {
namespace {

// Before it stands the list of options that take a value: __airllm_valued.
constexpr const char* kCode = R"(
# Whether the command on the line is $argv[1]; '' is none yet.
function __airllm_is
    set -l skip no
    for token in (commandline -opc)[2..-1]
        if test $skip = yes
            set skip no
        else if contains -- $token $__airllm_valued
            set skip yes
        else if not string match -q -- '-*' $token
            test "$argv[1]" = $token
            return
        end
    end
    test -z "$argv[1]"
end

# The plain names in the first column of what 'airllm COMMAND' prints below its headings.
function __airllm_names
    set -l tokens (commandline -opc)
    set -l globals
    for i in (seq (count $tokens))
        if test $tokens[$i] = --socket; and set -q tokens[(math $i + 1)]
            set globals --socket $tokens[(math $i + 1)]
        else if string match -q -- '--socket=*' $tokens[$i]
            set globals $tokens[$i]
        end
    end
    timeout 2 airllm $globals $argv[1] </dev/null 2>/dev/null | tail -n +2 |
        string replace -rf -- "^($argv[2])(\s.*)?\$" '$1'
end
function __airllm_models
    __airllm_names list '[A-Za-z0-9._/-]+'
end
function __airllm_jobs
    __airllm_names ps '[0-9]+'
end

complete -c airllm -f
)";

// The options of `parser` that take a value, by all their names, separated by blanks.
std::string names_with_value(const ParserInfo& parser) {
  std::string names;
  for (const OptionInfo& option : parser.options) {
    if (option.value.empty()) continue;
    for (const std::string& name : option.names) names += (names.empty() ? "" : " ") + name;
  }
  return names;
}

// In single quotes fish knows \\ and \'.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

// The command substitution that lists values, or "".
std::string source(std::string_view value) {
  switch (value_kind(value)) {
    case ValueKind::kModel: return "(__airllm_models)";
    case ValueKind::kJob: return "(__airllm_jobs)";
    case ValueKind::kFolder: return "(__fish_complete_directories)";
    case ValueKind::kFile:
    case ValueKind::kFree: break;
  }
  return "";
}

std::string condition(const std::string& command, const std::string& more = {}) {
  return "complete -c airllm -n " + quoted("__airllm_is " + quoted(command) + more);
}

std::string option_line(const std::string& command, const OptionInfo& option) {
  std::string line = condition(command);
  for (const std::string& name : option.names) {
    line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  }
  if (!option.value.empty()) {
    const std::string values = source(option.value);
    line += value_kind(option.value) == ValueKind::kFile ? " -r -F" : " -x";
    if (!values.empty()) line += " -a " + quoted(values);
  }
  return line + " -d " + quoted(option.help) + "\n";
}

std::string command_lines(const CommandInfo& command) {
  std::string text = condition("") + " -a " + quoted(command.name) + " -d " +
                     quoted(command.summary) + "\n" + condition("help") + " -a " +
                     quoted(command.name) + "\n";
  for (const OptionInfo& option : command.parser.options) {
    text += option_line(command.name, option);
  }
  std::string first;
  for (const std::string& word : command.parser.first_words)
    first += (first.empty() ? "" : " ") + word;
  const std::string seen = "__fish_seen_subcommand_from " + first;
  if (!first.empty()) {
    text += condition(command.name, "; and not " + seen) + " -a " + quoted(first) + "\n";
  }
  const std::string words = source(command.parser.word);
  const std::string behind = first.empty() ? "" : "; and " + seen;
  if (!words.empty()) text += condition(command.name, behind) + " -a " + quoted(words) + "\n";
  return text;
}

}  // namespace

std::string fish_completion(const ProgramInfo& program) {
  std::string text =
      "# Completion of airllm(1) for fish, made by 'airllm completion fish'.\n\n"
      "set -g __airllm_valued " +
      names_with_value(program.top_level) + "\n" + kCode;
  for (const OptionInfo& option : program.top_level.options) text += option_line("", option);
  text += condition("") + " -a help -d 'Describe a command'\n";
  for (const CommandInfo& command : program.commands) text += command_lines(command);
  return text;
}

}  // namespace airllm::client

// The script for zsh: one call of _arguments for what stands before the command, and one for each.
#include "client/completion.h"

namespace airllm::client {
namespace {

constexpr const char* kHead = R"(#compdef airllm
# Completion of airllm(1) for zsh, made by 'airllm completion zsh'.

# Adds the plain names in the first column of what 'airllm COMMAND' prints below its headings.
_airllm_names() {
  local name rest socket=${opt_args[--socket]:-$airllm_socket}
  local -a names
  timeout 2 airllm ${socket:+--socket=${(Q)socket}} $1 </dev/null 2>/dev/null | {
    read -r name rest
    while read -r name rest; do
      [[ $name =~ "^$2\$" ]] && names+=($name)
    done
  }
  compadd -a names
}
_airllm_models() { _airllm_names list '[A-Za-z0-9._/-]+' }
_airllm_jobs() { _airllm_names ps '[0-9]+' }

)";

// Follows the call of _arguments for what stands before the command. That call is no function of
// its own, since zsh would undo its changes to `words` at the function's end.
constexpr const char* kTail = R"( && [[ -z $state ]] && return 0
  [[ $state == command ]] || return 1
  airllm_socket=${opt_args[--socket]}
  if (( $+functions[_airllm_command_$line[1]] )); then
    _airllm_command_$line[1]
  fi
}

# Autoloaded as the function _airllm, or sourced.
if [[ $funcstack[1] == _airllm ]]; then
  _airllm "$@"
else
  compdef _airllm airllm
fi
)";

const char* action(std::string_view value) {
  switch (value_kind(value)) {
    case ValueKind::kModel: return "_airllm_models";
    case ValueKind::kJob: return "_airllm_jobs";
    case ValueKind::kFile: return "_files";
    case ValueKind::kFolder: return "_files -/";
    case ValueKind::kFree: break;
  }
  return "()";  // any value; a blank, which says the same, would hide the options as well
}

// What _arguments would take for its own in a text: brackets and colons.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// "--socket=" may have its value behind the '=' or in the next word, "-m+" behind the letter.
std::string with_value_mark(const std::string& name) {
  return name + (name.starts_with("--") ? "=" : "+");
}

std::string option_spec(const OptionInfo& option, const std::string& name) {
  std::string spec;
  if (option.repeats) {
    spec = "*";
  } else if (option.names.size() > 1) {
    spec = "(";
    for (const std::string& other : option.names) spec += (spec == "(" ? "" : " ") + other;
    spec += ")";
  }
  spec += (option.value.empty() ? name : with_value_mark(name)) + "[" + escaped(option.help) + "]";
  if (!option.value.empty()) spec += ":" + escaped(option.value) + ":" + action(option.value);
  return spec;
}

std::string options(const ParserInfo& parser) {
  std::string text;
  for (const OptionInfo& option : parser.options) {
    for (const std::string& name : option.names) {
      text += " \\\n    " + shell_quoted(option_spec(option, name));
    }
  }
  return text;
}

std::string command_function(const CommandInfo& command) {
  const ParserInfo& parser = command.parser;
  std::string text =
      "_airllm_command_" + command.name + "() {\n  _arguments -s -S" + options(parser);
  if (!parser.first_words.empty()) {
    std::string names;
    for (const std::string& word : parser.first_words) names += (names.empty() ? "" : " ") + word;
    text += " \\\n    " + shell_quoted("1:" + command.name + ":(" + names + ")");
  }
  if (!parser.word.empty()) {
    const size_t first = parser.first_words.empty() ? 1 : 2;
    const std::string many = parser.max_words > first ? "*" : std::to_string(first);
    text += " \\\n    " + shell_quoted(many + ":" + parser.word + ":" + action(parser.word));
  }
  return text + "\n}\n";
}

// The commands as _describe takes them.
std::string command_list(const ProgramInfo& program) {
  std::string text = "_airllm_commands() {\n  local -a commands=(\n";
  for (const CommandInfo& command : program.commands) {
    text += "    " + shell_quoted(command.name + ":" + escaped(command.summary)) + "\n";
  }
  return text +
         "    'help:Describe a command'\n  )\n  _describe -t commands command commands\n}\n" +
         "_airllm_command_help() { _arguments '1:command:_airllm_commands' }\n";
}

std::string main_function(const ProgramInfo& program) {
  return "\n_airllm() {\n  local curcontext=$curcontext state line airllm_socket\n"
         "  typeset -A opt_args\n  _arguments -C -s -S" +
         options(program.top_level) +
         " \\\n    '1:command:_airllm_commands' '*::argument:->command'" + kTail;
}

}  // namespace

std::string zsh_completion(const ProgramInfo& program) {
  std::string text = kHead + command_list(program);
  for (const CommandInfo& command : program.commands) text += command_function(command);
  return text + main_function(program);
}

}  // namespace airllm::client

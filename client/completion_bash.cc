// The script for bash: two tables as `case` statements, and code that is always the same.
#include <algorithm>
#include <map>

#include "client/completion.h"

namespace airllm::client {
namespace {

constexpr const char* kHead =
    R"(# Completion of airllm(1) for bash, made by 'airllm completion bash'.

)";

constexpr const char* kCode = R"(
# The plain names in the first column of what 'airllm COMMAND' prints below its headings.
_airllm_names() {
  local name rest
  timeout 2 airllm "${globals[@]}" "$1" </dev/null 2>/dev/null | {
    read -r name rest
    while read -r name rest; do
      [[ $name =~ ^$2$ ]] && printf '%s\n' "$name"
    done
  }
}

# Sets COMPREPLY to what is of the kind $1 and begins with $2.
_airllm_reply() {
  local candidates='' candidate IFS=$' \t\n'
  case $1 in
    option) candidates=$options ;;
    first) candidates=$first ;;
    command) candidates=$commands ;;
    model) candidates=$(_airllm_names list '[A-Za-z0-9._/-]+') ;;
    job) candidates=$(_airllm_names ps '[0-9]+') ;;
    file | folder)
      compopt -o filenames 2>/dev/null
      [[ $1 == file ]] && mapfile -t COMPREPLY < <(compgen -f -- "$2")
      [[ $1 == folder ]] && mapfile -t COMPREPLY < <(compgen -d -- "$2")
      ;;
  esac
  for candidate in $candidates; do
    [[ $candidate == "$2"* ]] && COMPREPLY+=("$candidate")
  done
}

_airllm() {
  local word=${COMP_WORDS[COMP_CWORD]} command='' kind='' plain='' i given=0
  local commands options words limit first
  local -a globals=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ -z $plain ]] && _airllm_value "$command" "${COMP_WORDS[i]}"; then
      local name=${COMP_WORDS[i]}
      [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((++i))
      if ((i + 1 >= COMP_CWORD)); then
        _airllm_reply "$kind" "${word#=}"
        return
      fi
      ((++i))
      [[ $name == --socket ]] && globals=(--socket "${COMP_WORDS[i]/#\~\//$HOME/}")
    elif [[ -n $plain || ${COMP_WORDS[i]} != -* ]]; then
      if [[ -z $command ]]; then command=${COMP_WORDS[i]}; else ((++given)); fi
    elif [[ ${COMP_WORDS[i]} == -- ]]; then
      plain=yes
    fi
  done
  _airllm_command "$command"
  if [[ -z $plain && $word == -* ]]; then
    _airllm_reply option "$word"
  elif ((given == 0)) && [[ -n $first ]]; then
    _airllm_reply first "$word"
  elif ((given < limit)); then
    _airllm_reply "$words" "$word"
  fi
}

complete -F _airllm airllm
)";

std::string kind_word(ValueKind kind) {
  switch (kind) {
    case ValueKind::kModel: return "model";
    case ValueKind::kJob: return "job";
    case ValueKind::kFile: return "file";
    case ValueKind::kFolder: return "folder";
    case ValueKind::kFree: break;
  }
  return "free";
}

std::string all_names(const ParserInfo& parser) {
  std::string names;
  for (const OptionInfo& option : parser.options) {
    for (const std::string& name : option.names) names += (names.empty() ? "" : " ") + name;
  }
  return names;
}

std::string command_row(const std::string& command, const std::string& options,
                        const std::string& words, size_t limit, const std::string& first = {}) {
  return "    " + shell_quoted(command) + ") options=" + shell_quoted(options) +
         " words=" + shell_quoted(words) + " limit=" + std::to_string(limit) +
         (first.empty() ? "" : " first=" + shell_quoted(first)) + " ;;\n";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// Sets `options`, `words` (the kind), `limit` (how many words) and `first` (what the first one may
// be) of the command $1.
std::string command_table(const ProgramInfo& program) {
  constexpr size_t kNoLimit = 99999;
  std::string names;
  std::string rows = command_row("", all_names(program.top_level), "command", 1);
  for (const CommandInfo& command : program.commands) {
    names += command.name + " ";
    rows += command_row(
        command.name, all_names(command.parser), kind_word(value_kind(command.parser.word)),
        std::min(command.parser.max_words, kNoLimit), joined(command.parser.first_words));
  }
  rows += command_row("help", "", "command", 1);
  return "# Sets what there is to know of the command $1: its options, the kind of its words, and "
         "how "
         "many\n# words it takes.\n_airllm_command() {\n  commands=" +
         shell_quoted(names + "help") + " options='' words='' limit=0 first=''\n  case $1 in\n" +
         rows + "  esac\n}\n";
}

void add_values(const std::string& command, const ParserInfo& parser,
                std::map<std::string, std::string>& patterns) {
  for (const OptionInfo& option : parser.options) {
    if (option.value.empty()) continue;
    std::string& pattern = patterns[kind_word(value_kind(option.value))];
    for (const std::string& name : option.names) {
      pattern += (pattern.empty() ? "" : " | ") + shell_quoted(command + " " + name);
    }
  }
}

std::string value_table(const ProgramInfo& program) {
  std::map<std::string, std::string> patterns;  // kind -> the options whose values are of it
  add_values("", program.top_level, patterns);
  for (const CommandInfo& command : program.commands) {
    add_values(command.name, command.parser, patterns);
  }
  std::string text =
      "\n# Whether the option $2 of the command $1 takes a value; sets `kind` to the value's.\n"
      "_airllm_value() {\n  case \"$1 $2\" in\n";
  for (const auto& [kind, pattern] : patterns) {
    text += "    " + pattern + ") kind=" + shell_quoted(kind) + " ;;\n";
  }
  return text + "    *) return 1 ;;\n  esac\n}\n";
}

}  // namespace

std::string bash_completion(const ProgramInfo& program) {
  return kHead + command_table(program) + value_table(program) + kCode;
}

}  // namespace airllm::client

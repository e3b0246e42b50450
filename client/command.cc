#include "client/command.h"

#include <algorithm>
#include <array>

#include "base/edit_distance.h"
#include "base/json.h"
#include "base/version.h"
#include "client/output.h"
#include "client/signals.h"

namespace airllm::client {
namespace {

constexpr std::array kCommands{
    Command{"ask", "Ask a model and print its answer as it comes", run_ask},
    Command{"split", "Make a model of the store from a Hugging Face folder", run_split},
    Command{"requantize", "Make a model with compressed weights of one of the store",
            run_requantize},
    Command{"list", "List the models of the store", run_list},
    Command{"show", "Show all that is known of a model", run_show},
    Command{"share", "Let all users see a model of yours", run_share},
    Command{"rm", "Remove models from the store", run_rm},
    Command{"verify", "Read a model and check its checksums", run_verify},
    Command{"default", "Show or set the model that is asked when none is named", run_default},
    Command{"ps", "List the jobs that wait and run", run_ps},
    Command{"cancel", "Cancel jobs", run_cancel},
    Command{"stop", "Give the memory of idle models back", run_stop},
    Command{"status", "Show the daemon's memory, device and models", run_status},
    Command{"doctor", "Check whether asking works, and say what to do", run_doctor},
    Command{"bench", "Measure how fast a model's weights stream, and what bounds it", run_bench},
    Command{"tokenize", "Show the tokens of a text", run_tokenize},
    Command{"detokenize", "Print the text of token ids", run_detokenize},
    Command{"template", "Print the prompt that a chat template makes of messages", run_template},
    Command{"version", "Show the version of this program", run_version},
};

// For the shells; no help lists it.
constexpr Command kCompletion{"completion", "Print a shell's completion script", run_completion};

// What other programs call things.
struct Foreign {
  std::string_view word;
  std::string_view remedy;
};

constexpr std::string_view kAsk = "ask a model: airllm ask -m MODEL 'PROMPT'";
constexpr std::string_view kServe =
    "the daemon is a program of its own: 'airllmd --foreground', or 'systemctl --user start "
    "airllmd'";
constexpr std::string_view kStop =
    "to stop the daemon: 'systemctl --user stop airllmd', or end the process that 'airllm status' "
    "names; to stop a job: 'airllm cancel JOB'; to give a model's memory back: 'airllm stop MODEL'";
constexpr std::string_view kPull =
    "models cannot be downloaded by airllm yet; download one with another program, then: airllm "
    "split DIR";

constexpr std::array kForeign{
    Foreign{"run", kAsk},
    Foreign{"chat", kAsk},
    Foreign{"generate", kAsk},
    Foreign{"complete", kAsk},
    Foreign{"serve", kServe},
    Foreign{"server", kServe},
    Foreign{"start", kServe},
    Foreign{"daemon", kServe},
    Foreign{"quit", kStop},
    Foreign{"unload", "give a model's memory back: airllm stop MODEL"},
    Foreign{"pull", kPull},
    Foreign{"download", kPull},
    Foreign{"get", kPull},
    Foreign{"create", "make a model of the store: airllm split DIR"},
    Foreign{"import", "make a model of the store: airllm split DIR"},
    Foreign{"convert", "make a model of the store: airllm split DIR"},
    Foreign{"quantize", "compress a model: airllm requantize --bits 4 MODEL"},
    Foreign{"ls", "list the models: airllm list"},
    Foreign{"models", "list the models: airllm list"},
    Foreign{"info", "show a model: airllm show MODEL"},
    Foreign{"remove", "remove a model: airllm rm MODEL"},
    Foreign{"delete", "remove a model: airllm rm MODEL"},
    Foreign{"check", "check a model: airllm verify MODEL; the installation: airllm doctor"},
    Foreign{"diagnose", "check the installation: airllm doctor"},
    Foreign{"benchmark", "measure a model's sweeps: airllm bench stream MODEL"},
    Foreign{"jobs", "list the jobs: airllm ps"},
    Foreign{"kill", "cancel a job: airllm cancel JOB"},
    Foreign{"publish", "let all users see a model of yours: airllm share MODEL"},
    Foreign{"use", "set your default model: airllm default MODEL"},
};

std::string near_commands(std::string_view word) {
  std::string names;
  if (word.empty() || word.size() > 20) return names;
  for (const Command& command : kCommands) {
    const bool is_near = edit_distance(word, command.name) <= (word.size() < 4 ? 1 : 2) ||
                         command.name.starts_with(word) || word.starts_with(command.name);
    if (is_near) names += (names.empty() ? "" : ", ") + std::string(command.name);
  }
  return names;
}

std::string command_list() {
  size_t longest = 0;
  for (const Command& command : kCommands) longest = std::max(longest, command.name.size());
  std::string text = "Commands:\n";
  for (const Command& command : kCommands) {
    text += "  " + std::string(command.name) + std::string(longest + 2 - command.name.size(), ' ') +
            std::string(command.summary) + "\n";
  }
  return text + "\n'airllm COMMAND --help' describes a command; airllm(1) describes all.";
}

bool has_flag(const std::vector<std::string>& args, std::string_view flag) {
  for (const std::string& arg : args) {
    if (arg == "--") return false;
    if (arg == flag) return true;
  }
  return false;
}

// What the arguments seem to ask for, as long as no command's parser has seen them.
ErrorForm guess_error_form(const std::vector<std::string>& args) {
  if (has_flag(args, "--stream-json")) return ErrorForm::kJsonLine;
  return has_flag(args, "--json") ? ErrorForm::kJson : ErrorForm::kText;
}

int report(const Error& error, ErrorForm form) {
  Json object{{"error", error_json(error)}};
  if (form == ErrorForm::kJsonLine) object["type"] = "error";
  const bool is_said =
      form != ErrorForm::kText && print_out(json_for_stdout(object) + "\n", true).has_value();
  if (!is_said) print_error(error);
  return error.code == ErrorCode::kCancelled ? cancelled_exit_status() : exit_status(error.code);
}

const Command* find_command(std::string_view name) {
  if (name == kCompletion.name) return &kCompletion;
  const auto found = std::find_if(kCommands.begin(), kCommands.end(),
                                  [&](const Command& command) { return command.name == name; });
  return found == kCommands.end() ? nullptr : &*found;
}

// What stands before the subcommand.
struct TopLevel {
  Globals globals;
  bool version = false;
  std::vector<std::string> rest;  // the subcommand and what follows

  // False as ArgParser::parse().
  Result<bool> parse(const Invocation& call) {
    ArgParser parser("airllm",
                     "Runs language models larger than memory, through the daemon airllmd.");
    parser.usage("airllm [OPTIONS] COMMAND ...");
    parser.add_globals(globals);
    parser.flag("--version", version, "Show the version of this program");
    parser.epilogue(command_list());
    parser.stop_at_word(rest);
    AIRLLM_TRY(const bool go, parser.parse(call));
    if (!rest.empty() && rest.front() == "--") rest.erase(rest.begin());
    if (go && !version && rest.empty()) {
      return Unexpected(ErrorCode::kUsage, "no command is given", parser.help());
    }
    return go;
  }
};

Result<int> dispatch(const std::vector<std::string>& args, ErrorForm& error_form) {
  TopLevel top;
  AIRLLM_TRY(const bool go, top.parse({args, {}}));
  if (!go) return 0;
  if (top.version) return run_version({{}, top.globals});
  Invocation call{std::move(top.rest), top.globals};
  std::string word = call.args.front();
  call.args.erase(call.args.begin());
  if (word.starts_with('-')) {
    return Unexpected(ErrorCode::kUsage, "unknown option '" + word + "'",
                      "see 'airllm --help'; the options of a command stand behind its name, as in "
                      "'airllm ask -m MODEL'");
  }
  if (word == "help") {
    const auto name = std::find_if(call.args.begin(), call.args.end(),
                                   [](const std::string& arg) { return !arg.starts_with('-'); });
    word = name == call.args.end() ? "" : *name;
    call.args = {"--help"};
    if (word.empty()) return dispatch(call.args, error_form);
  }
  const Command* const command = find_command(word);
  if (command == nullptr) return Unexpected(unknown_command(word));
  call.error_form = &error_form;
  return command->run(call);
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

Result<ParserInfo> describe(const Command& command) {
  Invocation call;
  ParserInfo info;
  call.describe = &info;
  AIRLLM_TRY_VOID(command.run(call));
  return info;
}

Result<ParserInfo> describe_top_level() {
  Invocation call;
  ParserInfo info;
  call.describe = &info;
  AIRLLM_TRY_VOID(TopLevel().parse(call));
  return info;
}

Error unknown_command(const std::string& word) {
  for (const Foreign& foreign : kForeign) {
    if (foreign.word == word) {
      return {ErrorCode::kUsage, "airllm has no command '" + word + "'",
              std::string(foreign.remedy)};
    }
  }
  const std::string near = near_commands(word);
  return {ErrorCode::kUsage, "airllm has no command '" + word + "'",
          near.empty() ? "see 'airllm --help'" : "did you mean: " + near + "?"};
}

int run_command_line(const std::vector<std::string>& args) {
  ErrorForm error_form = guess_error_form(args);
  const Result<int> result = dispatch(args, error_form);
  return result ? *result : report(result.error(), error_form);
}

}  // namespace airllm::client

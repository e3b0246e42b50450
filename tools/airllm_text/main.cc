// airllm-text: a model's tokenizer and chat template without a daemon, for tests and measurements.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "tools/airllm_text/commands.h"

namespace airllm::tools {
namespace {

constexpr const char* kUsage =
    R"(usage: airllm-text encode DIR                   {"text", "add_special", "parse_special"} -> {"ids"}
       airllm-text decode DIR [--skip-special]  {"ids"} -> {"text"}
       airllm-text template DIR                 {"messages", "tools", "documents",
                                                 "add_generation_prompt", ...} -> {"text"}
       airllm-text count DIR [--seconds]        a text -> the number of its ids

DIR holds a model's tokenizer.json, tokenizer.model, *.tiktoken or tiktoken.model file, and its
configuration. Each line of standard input is a JSON object, and each gets one line of JSON in
answer: what is shown above, or {"error"}. "add_special" (false if absent) adds what the tokenizer
puts around a text, such as BOS; "parse_special" (false if absent) recognises added tokens in the
text: all of them or none. A string with half a surrogate pair is an error. "template" hands on
every further member as a variable of the template. "count" counts as encode does by default, and
with --seconds also says how long encoding alone took.
)";

enum class Command { kEncode, kDecode, kTemplate, kCount };

struct Arguments {
  Command command;
  std::string folder;
  bool skip_special = false;
  bool seconds = false;
};

std::optional<Command> command_of(const std::string& name) {
  if (name == "encode") return Command::kEncode;
  if (name == "decode") return Command::kDecode;
  if (name == "template") return Command::kTemplate;
  if (name == "count") return Command::kCount;
  return std::nullopt;
}

std::optional<Arguments> parse(std::vector<std::string> arguments) {
  if (arguments.empty()) return std::nullopt;
  const std::optional<Command> command = command_of(arguments.front());
  arguments.erase(arguments.begin());
  if (!command.has_value()) return std::nullopt;
  const bool skip_special =
      *command == Command::kDecode && std::erase(arguments, std::string("--skip-special")) > 0;
  const bool seconds =
      *command == Command::kCount && std::erase(arguments, std::string("--seconds")) > 0;
  if (arguments.size() != 1 || arguments.front().starts_with('-')) return std::nullopt;
  return Arguments{*command, std::move(arguments.front()), skip_special, seconds};
}

Status run(const Arguments& arguments) {
  AIRLLM_TRY(const tokenizer::TextFiles files, read_text_files(arguments.folder));
  Lines lines(STDIN_FILENO, STDOUT_FILENO);
  switch (arguments.command) {
    case Command::kEncode: return encode_lines(files, arguments.folder, lines);
    case Command::kDecode:
      return decode_lines(files, arguments.folder, arguments.skip_special, lines);
    case Command::kTemplate: return template_lines(files, arguments.folder, lines);
    case Command::kCount: return count_all(files, arguments.folder, arguments.seconds, lines);
  }
  return {};
}

int fail(const Error& error) {
  std::fprintf(stderr, "airllm-text: %s\n", error.message.c_str());
  if (!error.remedy.empty()) std::fprintf(stderr, "%s\n", error.remedy.c_str());
  return exit_status(error.code);
}

int run_command_line(const std::vector<std::string>& words) {
  if (words.size() == 1 && (words[0] == "--help" || words[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const std::optional<Arguments> arguments = parse(words);
  if (!arguments.has_value()) {
    std::fputs(kUsage, stderr);
    return exit_status(ErrorCode::kUsage);
  }
  const Status status = run(*arguments);
  return status ? 0 : fail(status.error());
}

}  // namespace
}  // namespace airllm::tools

int main(int argc, char** argv) {
  try {
    return airllm::tools::run_command_line(
        std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
  } catch (const std::exception& error) {
    // Out of memory, or a bug.
    return airllm::tools::fail({airllm::ErrorCode::kOs, error.what(), ""});
  }
}

// The command line of one subcommand. Hides CLI11: its conversions (octal numbers, "[a,b]" cut at
// commas, "{}" as nothing) and exit codes never reach a user, since values are read as raw text.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::client {

// How a failure is printed: as a message, as one JSON object, or as a line of JSON.
enum class ErrorForm { kText, kJson, kJsonLine };

// Options that every subcommand takes, before or after its name.
struct Globals {
  std::optional<std::string> socket;
  bool spawn = false;
  std::optional<std::string> store;  // for the daemon that --spawn starts
  bool json = false;
  std::optional<double> connect_timeout_seconds;
};

// One option, for those who complete command lines.
struct OptionInfo {
  std::vector<std::string> names;  // "-m", "--model"
  std::string value;               // "MODEL"; "" when it takes none
  std::string help;
  bool repeats = false;  // given once for each value
};

// What a parser takes.
struct ParserInfo {
  std::vector<OptionInfo> options;
  std::string word;                           // what its words are: "MODEL"; "" when it takes none
  size_t max_words = 0;                       // how many it takes at most
  std::vector<std::string> first_words = {};  // the first is one of these names, if there are any
};

// What a subcommand is called with.
struct Invocation {
  std::vector<std::string> args;   // after its name
  Globals globals;                 // those given before its name
  ParserInfo* describe = nullptr;  // if set, the subcommand only says here what it takes
  // If set, its parser notes here what the arguments ask for, also when they are wrong.
  ErrorForm* error_form = nullptr;
};

// Bounds of a number, both included unless said otherwise.
struct Range {
  double min = 0;
  double max = std::numeric_limits<double>::max();
  bool min_excluded = false;
};

// What --connect-timeout and AIRLLM_CONNECT_TIMEOUT may be, in seconds.
inline constexpr Range kTimeoutRange{0, 1e6, false};

// Describe all options, then parse() once, which fills the targets. Not thread-safe.
class ArgParser {
 public:
  // `usage_name` is what the help calls the command: "airllm ask".
  ArgParser(const std::string& usage_name, const std::string& summary);
  ~ArgParser();
  ArgParser(const ArgParser&) = delete;
  ArgParser& operator=(const ArgParser&) = delete;

  void add_globals(Globals& globals);
  void flag(const std::string& names, bool& target, const std::string& help);
  void text(const std::string& names, std::optional<std::string>& target, const std::string& value,
            const std::string& help);
  // Given once for each value.
  void texts(const std::string& names, std::vector<std::string>& target, const std::string& value,
             const std::string& help);
  void number(const std::string& names, std::optional<double>& target, Range range,
              const std::string& help);
  void integer(const std::string& names, std::optional<int64_t>& target, int64_t min,
               const std::string& help);
  void integer(const std::string& names, std::optional<uint64_t>& target, uint64_t min,
               const std::string& help);
  // As integer(), but -1 is as if the option was not given, as other programs have it.
  void integer_or_none(const std::string& names, std::optional<uint64_t>& target,
                       const std::string& help);
  // Between `min` and `max` words.
  void words(const std::string& name, std::vector<std::string>& target, size_t min, size_t max,
             const std::string& help);
  // Replaces the usage line that is made from the options.
  void usage(const std::string& line);
  // Shown below the options.
  void epilogue(const std::string& text);
  // Stops at the first word that is no option and leaves it and what follows in `rest`.
  void stop_at_word(std::vector<std::string>& rest);

  // False when there is nothing left to do: `call` asked for a description, which was given, or for
  // help, which was printed. What does not fit is a kUsage error.
  Result<bool> parse(const Invocation& call);
  std::string help() const;

 private:
  Result<bool> parse_args(const std::vector<std::string>& args);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A number in decimal, all of `text`. A kUsage error names `what`.
Result<int64_t> parse_integer(std::string_view text, std::string_view what);
Result<uint64_t> parse_unsigned(std::string_view text, std::string_view what);
Result<double> parse_number(std::string_view text, std::string_view what, const Range& range);

}  // namespace airllm::client

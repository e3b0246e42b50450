#include "client/args.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "client/output.h"

namespace airllm::client {
namespace {

// CLI11 cuts a positional "[a,b]" at its commas; a mark in front keeps it whole.
constexpr char kMark = '\x01';

std::string mark(const std::string& arg) {
  const bool needs_it = !arg.empty() && (arg.front() == '[' || arg.front() == kMark);
  return needs_it ? kMark + arg : arg;
}

std::string unmark(const std::string& arg) {
  return !arg.empty() && arg.front() == kMark ? arg.substr(1) : arg;
}

template <typename T>
Result<T> parse_whole(std::string_view text, std::string_view what) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) {
    return Unexpected(ErrorCode::kUsage,
                      std::string(what) + ": '" + std::string(text) + "' is out of range");
  }
  if (error != std::errc() || rest != end || text.empty()) {
    return Unexpected(ErrorCode::kUsage,
                      std::string(what) + ": '" + std::string(text) + "' is not " +
                          (std::is_floating_point_v<T> ? "a number"
                           : std::is_unsigned_v<T>     ? "a whole number of 0 or more"
                                                       : "a whole number"));
  }
  return value;
}

std::string describe(const Range& range) {
  std::array<char, 96> buffer{};
  if (range.max == std::numeric_limits<double>::max()) {
    std::snprintf(buffer.data(), buffer.size(), "%s %g", range.min_excluded ? "above" : "at least",
                  range.min);
  } else {
    std::snprintf(buffer.data(), buffer.size(),
                  range.min_excluded ? "above %g, at most %g" : "from %g to %g", range.min,
                  range.max);
  }
  return buffer.data();
}

template <typename T>
Result<T> parse_at_least(std::string_view text, std::string_view what, T min) {
  AIRLLM_TRY(const T value, parse_whole<T>(text, what));
  if (value >= min) return value;
  return Unexpected(ErrorCode::kUsage, std::string(what) + ": '" + std::string(text) +
                                           "' must be at least " + std::to_string(min));
}

// "-n,--max-tokens" -> {"-n", "--max-tokens"}.
std::vector<std::string> split_names(std::string_view names) {
  std::vector<std::string> list;
  while (!names.empty()) {
    const size_t end = std::min(names.find(','), names.size());
    list.emplace_back(names.substr(0, end));
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return list;
}

// CLI11 marks an option that may be given again with "...", as if it took several values at once.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_type_name().empty() ? "" : " " + option->get_type_name();
  }
};

// "-n,--max-tokens" -> "--max-tokens": what messages call the option.
std::string long_name(const CLI::Option& option) { return "--" + option.get_lnames().front(); }

}  // namespace

struct ArgParser::Impl {
  CLI::App app;
  std::vector<std::function<Status()>> readers;  // run after CLI11 has sorted the arguments
  std::vector<std::string>* rest = nullptr;
  std::string usage;
  ParserInfo info;

  std::string remedy() const { return "see '" + app.get_name() + " --help'"; }

  // Walks over `args` as CLI11 will, and collects the flags. A value for one ("--json=1") is an
  // error: CLI11 would take some of them for yes or no.
  Status collect_flags(const std::vector<std::string>& args,
                       std::vector<const CLI::Option*>& flags) const {
    for (size_t i = 0; i < args.size() && args[i] != "--"; ++i) {
      const std::string& arg = args[i];
      const bool is_long = arg.starts_with("--");
      const std::string name = arg.substr(0, is_long ? arg.find('=') : 2);
      const bool is_option = arg.size() > 1 && arg.front() == '-';
      const CLI::Option* option = is_option ? app.get_option_no_throw(name) : nullptr;
      if (option == nullptr && rest != nullptr) break;
      if (option == nullptr) continue;
      if (option->get_items_expected_max() > 0) {
        if (arg.size() == name.size()) ++i;  // the next one is its value
        continue;
      }
      flags.push_back(option);
      if (is_long && arg.size() > name.size()) {
        return Unexpected(ErrorCode::kUsage, name + " takes no value: '" + arg + "'");
      }
    }
    return {};
  }

  void note_error_form(const Invocation& call, const std::vector<const CLI::Option*>& flags) const {
    if (call.error_form == nullptr) return;
    const auto given = [&](const char* name) {
      const CLI::Option* option = app.get_option_no_throw(name);
      return option != nullptr && std::find(flags.begin(), flags.end(), option) != flags.end();
    };
    *call.error_form = given("--stream-json")                 ? ErrorForm::kJsonLine
                       : call.globals.json || given("--json") ? ErrorForm::kJson
                                                              : ErrorForm::kText;
  }

  CLI::Option* add(const std::string& names, const std::string& value, const std::string& help) {
    if (names.starts_with('-')) info.options.push_back({split_names(names), value, help});
    CLI::Option* option = app.add_option(names);
    option->description(help);
    option->type_name(value);
    // One value each time; it may be given again.
    option->expected(1, CLI::detail::expected_max_vector_size);
    option->allow_extra_args(false);
    return option;
  }

  // Reads the last value given for `option`; earlier ones are overruled, as in most programs.
  template <typename T, typename Parse>
  void read_last(CLI::Option* option, std::optional<T>& target, Parse parse) {
    readers.push_back([option, &target, parse]() -> Status {
      if (option->empty()) return {};
      const std::string text = unmark(option->results().back());
      AIRLLM_TRY(target, parse(text, long_name(*option)));
      return {};
    });
  }
};

ArgParser::ArgParser(const std::string& usage_name, const std::string& summary)
    : impl_(std::make_unique<Impl>()) {
  impl_->app.name(usage_name);
  impl_->app.description(summary);
  impl_->app.formatter(std::make_shared<HelpFormatter>());
  const std::string names = "-h,--help";
  const std::string help = "Show this help";
  impl_->app.set_help_flag(names, help);
  impl_->info.options.push_back({split_names(names), "", help});
}

ArgParser::~ArgParser() = default;

void ArgParser::add_globals(Globals& globals) {
  text("--socket", globals.socket, "PATH", "The daemon's socket");
  flag("--spawn", globals.spawn, "Start a private daemon if none answers");
  text("--store", globals.store, "DIR", "With --spawn: the private daemon's store");
  flag("--json", globals.json, "Print the result as JSON");
  number("--connect-timeout", globals.connect_timeout_seconds, kTimeoutRange,
         "Wait up to X seconds for a daemon that does not answer; without it 10 for one that "
         "restarts");
}

void ArgParser::flag(const std::string& names, bool& target, const std::string& help) {
  impl_->info.options.push_back({split_names(names), "", help});
  CLI::Option* option = impl_->app.add_flag(names);
  option->description(help);
  impl_->readers.push_back([option, &target]() -> Status {
    if (!option->empty()) target = true;
    return {};
  });
}

void ArgParser::text(const std::string& names, std::optional<std::string>& target,
                     const std::string& value, const std::string& help) {
  impl_->read_last(
      impl_->add(names, value, help), target,
      [](const std::string& text, const std::string&) { return Result<std::string>(text); });
}

void ArgParser::texts(const std::string& names, std::vector<std::string>& target,
                      const std::string& value, const std::string& help) {
  CLI::Option* option = impl_->add(names, value, help);
  impl_->info.options.back().repeats = true;
  impl_->readers.push_back([option, &target]() -> Status {
    for (const std::string& text : option->results()) target.push_back(unmark(text));
    return {};
  });
}

void ArgParser::number(const std::string& names, std::optional<double>& target, Range range,
                       const std::string& help) {
  impl_->read_last(impl_->add(names, "X", help), target,
                   [range](const std::string& text, const std::string& name) {
                     return parse_number(text, name, range);
                   });
}

void ArgParser::integer(const std::string& names, std::optional<int64_t>& target, int64_t min,
                        const std::string& help) {
  impl_->read_last(impl_->add(names, "N", help), target,
                   [min](const std::string& text, const std::string& name) {
                     return parse_at_least<int64_t>(text, name, min);
                   });
}

void ArgParser::integer(const std::string& names, std::optional<uint64_t>& target, uint64_t min,
                        const std::string& help) {
  impl_->read_last(impl_->add(names, "N", help), target,
                   [min](const std::string& text, const std::string& name) {
                     return parse_at_least<uint64_t>(text, name, min);
                   });
}

void ArgParser::integer_or_none(const std::string& names, std::optional<uint64_t>& target,
                                const std::string& help) {
  using Value = std::optional<uint64_t>;
  impl_->read_last(impl_->add(names, "N", help), target,
                   [](const std::string& text, const std::string& name) -> Result<Value> {
                     if (text == "-1") return Value();
                     AIRLLM_TRY(const uint64_t value, parse_unsigned(text, name));
                     return Value(value);
                   });
}

void ArgParser::words(const std::string& name, std::vector<std::string>& target, size_t min,
                      size_t max, const std::string& help) {
  impl_->info.word = name;
  impl_->info.max_words = max;
  CLI::Option* option = impl_->add(name, "", help);
  option->expected(1, CLI::detail::expected_max_vector_size);
  option->allow_extra_args();  // one after the other, also between options
  impl_->readers.push_back([option, &target, name, min, max]() -> Status {
    for (const std::string& text : option->results()) target.push_back(unmark(text));
    if (target.size() < min) {
      return Unexpected(ErrorCode::kUsage, name + " is missing");
    }
    if (target.size() > max) {
      return Unexpected(ErrorCode::kUsage, "one argument too many: '" + target[max] + "'");
    }
    return {};
  });
}

void ArgParser::usage(const std::string& line) { impl_->usage = line; }

void ArgParser::epilogue(const std::string& text) { impl_->app.footer(text); }

void ArgParser::stop_at_word(std::vector<std::string>& rest) {
  impl_->app.prefix_command();
  impl_->rest = &rest;
}

Result<bool> ArgParser::parse(const Invocation& call) {
  if (call.describe != nullptr) {
    *call.describe = impl_->info;
    return false;
  }
  std::vector<const CLI::Option*> flags;
  const Status status = with_remedy(impl_->collect_flags(call.args, flags), impl_->remedy());
  impl_->note_error_form(call, flags);
  AIRLLM_TRY_VOID(status);
  return parse_args(call.args);
}

Result<bool> ArgParser::parse_args(const std::vector<std::string>& args) {
  const std::string remedy = impl_->remedy();
  std::vector<std::string> reversed;  // CLI11 takes them last first
  for (auto arg = args.rbegin(); arg != args.rend(); ++arg) reversed.push_back(mark(*arg));
  try {
    impl_->app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    AIRLLM_TRY_VOID(print_out(help()));
    return false;
  } catch (const CLI::Error& error) {
    std::string message = error.what();
    if (!message.empty() && message[0] == 'T') message[0] = 't';
    return Unexpected(ErrorCode::kUsage, message,
                      remedy + "; a word that begins with '-' needs a '--' before it");
  }
  if (impl_->rest != nullptr) {
    for (const std::string& word : impl_->app.remaining()) impl_->rest->push_back(unmark(word));
  }
  for (const std::function<Status()>& reader : impl_->readers) {
    AIRLLM_TRY_VOID(with_remedy(reader(), remedy));
  }
  return true;
}

std::string ArgParser::help() const {
  std::string text = impl_->app.help();
  const size_t line = text.find("Usage: ");
  if (!impl_->usage.empty() && line != std::string::npos) {
    text.replace(line, text.find('\n', line) - line, "Usage: " + impl_->usage);
  }
  return text;
}

Result<int64_t> parse_integer(std::string_view text, std::string_view what) {
  return parse_whole<int64_t>(text, what);
}

Result<uint64_t> parse_unsigned(std::string_view text, std::string_view what) {
  return parse_whole<uint64_t>(text, what);
}

Result<double> parse_number(std::string_view text, std::string_view what, const Range& range) {
  AIRLLM_TRY(const double value, parse_whole<double>(text, what));
  const bool fits = std::isfinite(value) && value <= range.max &&
                    (range.min_excluded ? value > range.min : value >= range.min);
  if (fits) return value;
  return Unexpected(ErrorCode::kUsage,
                    std::string(what) + ": '" + std::string(text) + "' must be " + describe(range));
}

}  // namespace airllm::client

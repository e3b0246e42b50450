#include "fetch/options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <sstream>

#include "base/duration.h"
#include "base/units.h"
#include "base/version.h"

namespace airllm::fetch {
namespace {

// As they are written; apply() understands them.
struct Flags {
  std::optional<std::string> limit_rate;
  std::vector<std::string> endpoints;
  std::string ca_file;
  std::optional<std::string> connect_timeout;
  std::optional<std::string> stall_timeout;
  std::optional<std::string> retry_wait;
  std::string log_level;
};

void declare(CLI::App& app, Flags& flags, Options& options) {
  app.set_version_flag("--version", std::string("airllm-fetch ") + kProgramVersion);
  app.add_option("--socket-fd", options.socket_fd, "Serve the connection in this descriptor");
  app.add_option("--connections", options.connections, "Connections at once (8)")
      ->check(CLI::Range(uint64_t{1}, kMaxConnections));
  app.add_option("--limit-rate", flags.limit_rate, "Bytes per second of all connections together");
  app.add_option("--endpoint", flags.endpoints, "Where the service's own token may be sent");
  app.add_option("--ca-file", flags.ca_file, "Trust the certificate authorities in this file");
  app.add_option("--connect-timeout", flags.connect_timeout, "For one connection (15s)");
  app.add_option("--stall-timeout", flags.stall_timeout, "How long nothing may come (30s)");
  app.add_option("--tries", options.retry.max_tries, "Give up after so many without progress (8)")
      ->check(CLI::Range(1, 1000));
  app.add_option("--retry-wait", flags.retry_wait, "Before the second try; it doubles (1s)");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error");
}

Status set_duration(const std::optional<std::string>& text, const char* option,
                    std::chrono::milliseconds& out) {
  if (!text) return {};
  AIRLLM_TRY(const std::chrono::milliseconds value, parse_duration(*text));
  if (value.count() > 0 && value <= std::chrono::hours(24)) {
    out = value;
    return {};
  }
  return Unexpected(ErrorCode::kUsage, std::string(option) + ": '" + *text + "' is out of range",
                    "give more than nothing and at most a day, such as 30s");
}

Status apply(const Flags& flags, Options& options) {
  if (flags.limit_rate) {
    AIRLLM_TRY(options.limit_rate, parse_size(*flags.limit_rate));
  }
  for (const std::string& text : flags.endpoints) {
    AIRLLM_TRY(Url endpoint, parse_endpoint(text));
    options.endpoints.push_back(std::move(endpoint));
  }
  options.http.ca_file = flags.ca_file;
  const char* const file = std::getenv("SSL_CERT_FILE");  // NOLINT(concurrency-mt-unsafe)
  if (options.http.ca_file.empty() && file != nullptr) options.http.ca_file = file;
  AIRLLM_TRY_VOID(
      set_duration(flags.connect_timeout, "--connect-timeout", options.http.connect_timeout));
  std::chrono::milliseconds stall = options.http.stall_timeout;
  AIRLLM_TRY_VOID(set_duration(flags.stall_timeout, "--stall-timeout", stall));
  options.http.stall_timeout = std::chrono::ceil<std::chrono::seconds>(stall);
  AIRLLM_TRY_VOID(set_duration(flags.retry_wait, "--retry-wait", options.retry.first_wait));
  if (flags.log_level.empty() || log::parse_level(flags.log_level, options.log_level)) return {};
  return Unexpected(ErrorCode::kUsage, "unknown log level '" + flags.log_level + "'",
                    "use debug, info, warning or error");
}

}  // namespace

Result<CommandLine> parse_command_line(const std::vector<std::string>& args) {
  CommandLine line;
  Flags flags;
  CLI::App app("airllm-fetch: brings models from a hub, for airllmd", "airllm-fetch");
  declare(app, flags, line.options);
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream problem;
    if (app.exit(error, out, problem) == 0) {
      line.print = out.str();
      return line;
    }
    return Unexpected(ErrorCode::kUsage, error.what(), "airllm-fetch --help lists the options");
  }
  AIRLLM_TRY_VOID(apply(flags, line.options));
  return line;
}

}  // namespace airllm::fetch

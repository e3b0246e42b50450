// What airllm-fetch is told when it is started: see airllm-fetch(8).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "fetch/http_client.h"
#include "fetch/patience.h"
#include "fetch/url.h"

namespace airllm::fetch {

inline constexpr uint64_t kMaxConnections = 32;

struct Options {
  std::optional<int> socket_fd;  // a connection; without it the service manager's socket
  uint64_t connections = 8;
  uint64_t limit_rate = 0;
  std::vector<Url> endpoints;  // that the service's own token may be sent to
  HttpSettings http;
  RetryRules retry;
  log::Level log_level = log::Level::kInfo;
};

struct CommandLine {
  Options options;
  std::optional<std::string> print;  // --help or --version: this, and nothing else
};

// kUsage for what it does not understand. Reads SSL_CERT_FILE of the environment.
Result<CommandLine> parse_command_line(const std::vector<std::string>& args);

}  // namespace airllm::fetch

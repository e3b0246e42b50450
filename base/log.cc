#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/utf8.h"

namespace airllm::log {
namespace {

// The journal reads a priority from "<N>" at the start of a line (sd-daemon(3)).
std::string_view journal_prefix(Level level) {
  switch (level) {
    case Level::kDebug: return "<7>";
    case Level::kInfo: return "<6>";
    case Level::kWarning: return "<4>";
    case Level::kError: return "<3>";
  }
  return "<6>";
}

spdlog::level::level_enum spdlog_level(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarning: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

struct Logger {
  std::shared_ptr<spdlog::logger> sink =
      std::make_shared<spdlog::logger>("airllm", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  bool to_journal = false;
};

Logger& logger() {
  static Logger instance;
  return instance;
}

}  // namespace

void init(Level level, bool to_journal) {
  Logger& target = logger();
  target.to_journal = to_journal;
  target.sink->set_level(spdlog_level(level));
  target.sink->set_pattern(to_journal ? "%v" : "%Y-%m-%d %H:%M:%S.%e %l: %v");
  target.sink->flush_on(spdlog::level::debug);
}

bool stderr_is_journal() {
  const char* value = std::getenv("JOURNAL_STREAM");  // NOLINT(concurrency-mt-unsafe)
  struct stat info {};
  if (value == nullptr || ::fstat(STDERR_FILENO, &info) != 0) return false;
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) == value;
}

void set_level(Level level) { logger().sink->set_level(spdlog_level(level)); }

bool is_enabled(Level level) { return logger().sink->should_log(spdlog_level(level)); }

bool parse_level(std::string_view word, Level& level) {
  if (word == "debug")
    level = Level::kDebug;
  else if (word == "info")
    level = Level::kInfo;
  else if (word == "warning")
    level = Level::kWarning;
  else if (word == "error")
    level = Level::kError;
  else
    return false;
  return true;
}

void write(Level level, std::string_view line) {
  const Logger& target = logger();
  std::string text = escape_for_display(line, true);
  if (target.to_journal) text.insert(0, journal_prefix(level));
  target.sink->log(spdlog_level(level), text);
}

}  // namespace airllm::log

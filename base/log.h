// Logging of the daemon and the engine: to stderr, or to the journal when systemd started us.
//
// No level writes prompt or answer text. Lines are escaped: a name from outside cannot forge one.
// Thread-safe. The client does not log; it prints.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace airllm::log {

enum class Level { kDebug, kInfo, kWarning, kError };

// Call once at start. `to_journal` writes with systemd's <N> priority prefixes and without a time,
// since the journal has both.
void init(Level level, bool to_journal);
// Whether stderr is the journal's stream: JOURNAL_STREAM is its "device:inode" (systemd.exec(5)).
bool stderr_is_journal();
// From any thread, at any time.
void set_level(Level level);
bool is_enabled(Level level);
// One of debug, info, warning, error; false for another word.
bool parse_level(std::string_view word, Level& level);
void write(Level level, std::string_view line);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace airllm::log

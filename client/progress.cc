#include "client/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "base/units.h"
#include "base/utf8.h"
#include "client/output.h"

namespace airllm::client {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
// A rate over less than this says little.
constexpr double kRateAfterSeconds = 0.3;

size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 79;
  return static_cast<size_t>(size.ws_col) - 1U;
}

template <typename... Values>
std::string print(const char* format, Values... values) {
  std::array<char, 96> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, values...);
  return buffer.data();
}

std::string amount(uint64_t count, const std::string& unit) {
  return unit == "bytes" ? format_size(count) : std::to_string(count);
}

std::string time_left(double seconds) {
  if (seconds < 100) return print("%.0f s left", seconds);
  if (seconds < 6000) return print("%.0f min left", seconds / 60);
  return print("%.1f h left", seconds / 3600);
}

}  // namespace

std::string progress_text(const protocol::Progress& progress, double rate, size_t columns) {
  std::string text = escape_for_display(progress.stage, true);
  if (progress.done > 0 || progress.total > 0) text += " " + amount(progress.done, progress.unit);
  if (progress.total > 0) text += " of " + amount(progress.total, progress.unit);
  if (progress.unit != "bytes" && (progress.done > 0 || progress.total > 0)) {
    text += " " + escape_for_display(progress.unit, true);
  }
  if (rate > 0) {
    text += progress.unit == "bytes" ? print(", %.2f GB/s", rate / 1e9) : print(", %.1f/s", rate);
    if (progress.total > progress.done) {
      text += ", " + time_left(static_cast<double>(progress.total - progress.done) / rate);
    }
  }
  if (text.size() > columns) text.resize(columns - incomplete_utf8_suffix(text.substr(0, columns)));
  return text;
}

ProgressLine::ProgressLine() : enabled_(stderr_is_terminal()) {}

void ProgressLine::update(const protocol::Progress& progress) {
  if (!enabled_) return;
  const Clock::time_point now = Clock::now();
  const bool is_new_stage = progress.stage != stage_ || progress.done < first_done_;
  if (is_new_stage) {
    stage_ = progress.stage;
    first_done_ = progress.done;
    started_ = now;
  }
  if (visible_ && !is_new_stage && now - drawn_ < kRedrawInterval) return;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const double rate =
      seconds < kRateAfterSeconds ? 0 : static_cast<double>(progress.done - first_done_) / seconds;
  print_err("\r" + progress_text(progress, rate, terminal_columns()) + "\x1b[K");
  visible_ = true;
  drawn_ = now;
}

void ProgressLine::clear() {
  if (!visible_) return;
  print_err("\r\x1b[K");
  visible_ = false;
}

}  // namespace airllm::client

#include "base/duration.h"

#include <array>
#include <charconv>
#include <cmath>

namespace airllm {
namespace {

struct Unit {
  std::string_view name;
  double milliseconds;
};

constexpr std::array kUnits{Unit{"", 1e3},     Unit{"ms", 1.0},   Unit{"s", 1e3},
                            Unit{"m", 60e3},   Unit{"min", 60e3}, Unit{"h", 3600e3},
                            Unit{"d", 86400e3}};

Unexpected bad_duration(std::string_view text) {
  return Unexpected(ErrorCode::kUsage, "not a duration: '" + std::string(text) + "'",
                    "write a number with ms, s, m, h or d, such as 30m, or 'forever'");
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

}  // namespace

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const std::string word = lower(text);
  if (word == "forever") return kForever;
  double number = 0;
  const char* const end = word.data() + word.size();
  const auto [rest, error] = std::from_chars(word.data(), end, number, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(number) || std::signbit(number)) {
    return bad_duration(text);
  }
  const std::string_view suffix(rest, static_cast<size_t>(end - rest));
  for (const Unit& unit : kUnits) {
    if (unit.name != suffix) continue;
    const double milliseconds = std::round(number * unit.milliseconds);
    if (milliseconds > static_cast<double>(kLongestDuration.count())) return bad_duration(text);
    return std::chrono::milliseconds(static_cast<int64_t>(milliseconds));
  }
  return bad_duration(text);
}

std::string format_duration(std::chrono::milliseconds duration) {
  using namespace std::chrono;
  const auto as = [&]<typename Unit>(Unit, const char* name) {
    return std::to_string(round<Unit>(duration).count()) + name;
  };
  if (duration == kForever) return "forever";
  if (duration == 0ms) return "0 s";
  if (duration < 1s) return as(milliseconds(), " ms");
  if (duration < 2min) return as(seconds(), " s");
  if (duration < 2h) return as(minutes(), " min");
  return duration < 48h ? as(hours(), " h") : as(days(), " d");
}

}  // namespace airllm

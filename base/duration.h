// Durations as people write them.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm {

// Longer than anything lasts. Not to be added to a point in time.
inline constexpr std::chrono::milliseconds kForever = std::chrono::milliseconds::max();
// The longest other one; a point in time plus it can be told.
inline constexpr std::chrono::milliseconds kLongestDuration = std::chrono::hours(24 * 36500);

// "30m", "1.5h", "90s", "250ms", "2d", "forever", or a number of seconds; units in lower or upper
// case. Negative, empty or unknown text, and more than kLongestDuration, is a kUsage error that
// quotes `text`.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

// For people: "forever", "250 ms", "90 s", "5 min", "3 h", "4 d".
std::string format_duration(std::chrono::milliseconds duration);

}  // namespace airllm

#include "engine/jinja/strftime.h"

#include <ctime>
#include <cwchar>

#include <fmt/format.h>

#include "base/utf8.h"
#include "engine/text/unicode.h"

namespace airllm::jinja {
namespace {

namespace chrono = std::chrono;

// What datetime.timetuple() gives: whether it is summer time is not known.
std::tm time_tuple(LocalTime time) {
  const chrono::local_days day = chrono::floor<chrono::days>(time);
  const chrono::year_month_day date(day);
  const chrono::hh_mm_ss clock(time - day);
  std::tm tuple{};
  tuple.tm_year = static_cast<int>(date.year()) - 1900;
  tuple.tm_mon = static_cast<int>(static_cast<unsigned>(date.month())) - 1;
  tuple.tm_mday = static_cast<int>(static_cast<unsigned>(date.day()));
  tuple.tm_hour = static_cast<int>(clock.hours().count());
  tuple.tm_min = static_cast<int>(clock.minutes().count());
  tuple.tm_sec = static_cast<int>(clock.seconds().count());
  tuple.tm_wday = static_cast<int>(chrono::weekday(day).c_encoding());
  const chrono::local_days first(date.year() / chrono::January / 1);
  tuple.tm_yday = static_cast<int>((day - first).count());
  tuple.tm_isdst = -1;
  return tuple;
}

// Python replaces %f, %z and %Z itself; a time without a zone has none to show.
std::wstring without_own_letters(LocalTime time, std::string_view format) {
  const auto fraction = chrono::floor<chrono::microseconds>(time).time_since_epoch().count();
  constexpr int64_t kMicroseconds = 1'000'000;
  const int64_t microseconds = (fraction % kMicroseconds + kMicroseconds) % kMicroseconds;
  std::wstring result;
  for (size_t at = 0; at < format.size();) {
    const char32_t c = text::next_code_point(format, at);
    result += static_cast<wchar_t>(c);
    if (c != U'%' || at == format.size()) continue;
    const char32_t letter = text::next_code_point(format, at);
    if (letter == U'z' || letter == U'Z' || letter == U'f') result.pop_back();
    if (letter == U'f') {
      for (const char digit : fmt::format("{:06}", microseconds))
        result += static_cast<wchar_t>(digit);
    } else if (letter != U'z' && letter != U'Z') {
      result += static_cast<wchar_t>(letter);
    }
  }
  return result;
}

}  // namespace

LocalTime local_now() {
  const auto now = chrono::floor<chrono::microseconds>(chrono::system_clock::now());
  const auto whole = chrono::floor<chrono::seconds>(now);
  const std::time_t seconds = chrono::system_clock::to_time_t(whole);
  std::tm local{};
  localtime_r(&seconds, &local);
  const chrono::year_month_day date(chrono::year(local.tm_year + 1900),
                                    chrono::month(static_cast<unsigned>(local.tm_mon + 1)),
                                    chrono::day(static_cast<unsigned>(local.tm_mday)));
  return chrono::local_days(date) + chrono::hours(local.tm_hour) + chrono::minutes(local.tm_min) +
         chrono::seconds(local.tm_sec) + (now - whole);
}

std::string format_time(LocalTime time, std::string_view format) {
  const std::wstring wide = without_own_letters(time, format);
  if (wide.empty()) return {};
  const std::tm tuple = time_tuple(time);
  // The sizes that Python tries, too: nothing came, and nothing will, or it is far too long.
  std::wstring buffer;
  size_t length = 0;
  for (size_t size = 1024; length == 0; size *= 2) {
    buffer.resize(size);
    length = std::wcsftime(buffer.data(), size, wide.c_str(), &tuple);
    if (size >= 256 * wide.size()) break;
  }
  std::string result;
  for (size_t i = 0; i < length; ++i) append_utf8(result, static_cast<char32_t>(buffer[i]));
  return result;
}

}  // namespace airllm::jinja

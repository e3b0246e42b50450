// The time as templates print it.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace airllm::jinja {

// Of a clock on the wall, with no time zone told: Python's datetime.now().
using LocalTime = std::chrono::local_time<std::chrono::microseconds>;

LocalTime local_now();

// As Python's datetime.strftime() of such a time, in the C locale: zones are empty, %f is
// microseconds, what glibc does not know stays as it is. `format` is UTF-8. Like Python's, the
// result is empty where it would be far longer than its format.
std::string format_time(LocalTime time, std::string_view format);

}  // namespace airllm::jinja

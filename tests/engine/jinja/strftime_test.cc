#include "engine/jinja/strftime.h"

#include <gtest/gtest.h>

#include "tests/engine/jinja/fixtures.h"

namespace airllm::jinja {
namespace {

// 2024-02-29 05:06:07.000089, a Thursday.
LocalTime fixed_time() {
  using namespace std::chrono;
  return local_days(year(2024) / February / 29) + hours(5) + minutes(6) + seconds(7) +
         microseconds(89);
}

TEST(FormatTime, EqualsPython) {
  const Json cases = read_fixture("strftime.json");
  ASSERT_GT(cases.size(), 300U);
  for (const Json& pair : cases) {
    const auto format = pair[0].get<std::string>();
    EXPECT_EQ(format_time(fixed_time(), format), pair[1].get<std::string>()) << format;
  }
}

TEST(FormatTime, NowIsTheClockOnTheWall) {
  const std::time_t before = std::time(nullptr);
  const std::string printed = format_time(local_now(), "%Y-%m-%d %H:%M:%S");
  const std::time_t after = std::time(nullptr);
  const auto local = [](std::time_t time) {
    std::tm tuple{};
    localtime_r(&time, &tuple);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tuple);
    return std::string(text);
  };
  EXPECT_LE(local(before), printed);
  EXPECT_LE(printed, local(after));
}

}  // namespace
}  // namespace airllm::jinja

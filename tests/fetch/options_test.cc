#include "fetch/options.h"

#include <gtest/gtest.h>

namespace airllm::fetch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(FetchOptions, AreRead) {
  const auto line = parse_command_line({"--socket-fd",
                                        "5",
                                        "--connections",
                                        "3",
                                        "--limit-rate",
                                        "2M",
                                        "--endpoint",
                                        "https://hub.example/",
                                        "--endpoint=https://mirror.example",
                                        "--ca-file",
                                        "/ca",
                                        "--connect-timeout",
                                        "3s",
                                        "--stall-timeout",
                                        "1500ms",
                                        "--tries",
                                        "2",
                                        "--retry-wait",
                                        "50ms",
                                        "--log-level",
                                        "debug"});
  ASSERT_TRUE(line.has_value()) << line.error().message;
  const Options& options = line->options;
  EXPECT_EQ(options.socket_fd, 5);
  EXPECT_EQ(options.connections, 3U);
  EXPECT_EQ(options.limit_rate, uint64_t{2} << 20);
  ASSERT_EQ(options.endpoints.size(), 2U);
  EXPECT_EQ(options.endpoints[0].origin().host, "hub.example");
  EXPECT_EQ(options.http.ca_file, "/ca");
  EXPECT_EQ(options.http.connect_timeout, milliseconds(3000));
  EXPECT_EQ(options.http.stall_timeout, seconds(2));
  EXPECT_EQ(options.retry.max_tries, 2);
  EXPECT_EQ(options.retry.first_wait, milliseconds(50));
  EXPECT_EQ(options.log_level, log::Level::kDebug);
}

TEST(FetchOptions, WrongOnesAreUsageErrors) {
  const std::vector<std::vector<std::string>> lines = {{"--connections", "0"},
                                                       {"--connections", "33"},
                                                       {"--limit-rate", "fast"},
                                                       {"--endpoint", "ftp://x"},
                                                       {"--connect-timeout", "0"},
                                                       {"--stall-timeout", "forever"},
                                                       {"--tries", "0"},
                                                       {"--retry-wait", "-1"},
                                                       {"--log-level", "loud"},
                                                       {"--socket-fd", "x"},
                                                       {"--unknown"},
                                                       {"word"}};
  for (const auto& line : lines) {
    const auto parsed = parse_command_line(line);
    ASSERT_FALSE(parsed.has_value()) << line[0];
    EXPECT_EQ(parsed.error().code, ErrorCode::kUsage) << line[0];
  }
}

TEST(FetchOptions, HelpAndVersionPrint) {
  EXPECT_NE(parse_command_line({"--help"})->print->find("--socket-fd"), std::string::npos);
  EXPECT_TRUE(parse_command_line({"--version"})->print->starts_with("airllm-fetch "));
  EXPECT_FALSE(parse_command_line({})->print.has_value());
}

}  // namespace
}  // namespace airllm::fetch

// What the system shows of a client's arguments while it waits.
#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <sstream>

#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

std::string command_line_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What the system shows of the client's arguments once its request has come.
std::string shown_arguments(const std::vector<std::string>& args) {
  std::promise<void> asked;
  const FakeDaemon daemon([&](Peer& peer) {
    peer.read_request();
    asked.set_value();
    peer.read();
  });
  const Running client(args, daemon.with_socket({}));
  EXPECT_EQ(asked.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  return command_line_of(client.pid());
}

TEST(Arguments, TextsAreHiddenOnceRead) {
  const std::string shown =
      shown_arguments({"ask", "--model", "tiny", "--system", "hush-system", "--stop=hush-stop",
                       "--stop", "hush-other", "hush-first", "--seed", "7", "--", "hush-last"});
  EXPECT_EQ(shown.find("hush"), std::string::npos) << shown;
  for (const char* part : {"ask", "--model", "tiny", "--system", "--stop=***", "--seed"}) {
    EXPECT_NE(shown.find(part), std::string::npos) << part << " in " << shown;
  }
}

TEST(Arguments, TokenIdsAreHiddenToo) {
  EXPECT_EQ(shown_arguments({"ask", "--prompt-ids=31337,31338"}).find("3133"), std::string::npos);
  EXPECT_EQ(shown_arguments({"ask", "--prompt-ids", "31337,31338"}).find("3133"),
            std::string::npos);
}

TEST(Arguments, TheDaemonGetsThemWhole) {
  std::promise<protocol::Request> asked;
  const FakeDaemon daemon([&](Peer& peer) { asked.set_value(peer.read_request()); });
  (void)daemon.run({"ask", "--system", "be brief", "--stop=[END]", "[what]", "is", "[what]"});
  const protocol::Request request = asked.get_future().get();
  const auto& params = std::get<protocol::GenerateParams>(request.params);
  ASSERT_EQ(params.messages.size(), 2u);
  EXPECT_EQ(params.messages[0].content, "be brief");
  EXPECT_EQ(params.messages[1].content, "[what] is [what]");
  EXPECT_EQ(params.stop, std::vector<std::string>{"[END]"});
}

}  // namespace
}  // namespace airllm::client

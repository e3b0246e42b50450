// Waiting for a daemon that restarts.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/check.h"
#include "client/connector.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

const Error kStopping{ErrorCode::kUnavailable, "the daemon is stopping", "ask again"};

// A socket at `path` that nobody accepts from; it refuses until listen() is called.
UniqueFd bound_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  AIRLLM_CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  AIRLLM_CHECK(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

// Puts a way to `daemon` at `path`, in place of what is there.
void move_in(const FakeDaemon& daemon, const std::string& path) {
  std::filesystem::create_symlink(daemon.socket(), path + ".new");
  std::filesystem::rename(path + ".new", path);
}

// `first` for the first connection, `then` for all later ones; counts them.
struct Restarting {
  std::shared_ptr<std::atomic<int>> connections = std::make_shared<std::atomic<int>>(0);
  FakeDaemon::Script script(FakeDaemon::Script first, FakeDaemon::Script then) const {
    return [count = connections, first = std::move(first), then = std::move(then)](Peer& peer) {
      (count->fetch_add(1) == 0 ? first : then)(peer);
    };
  }
};

RunOptions on_terminal() {
  RunOptions options;
  options.terminal = true;
  return options;
}

// One connection is waiting already, and no more than that fit.
class FullQueue : public testing::Test {
 protected:
  FullQueue() : path_(folder_ / "full"), listener_(bound_socket(path_)) {
    AIRLLM_CHECK(listen(listener_.get(), 0) == 0);
    first_ = try_connect(path_);
    AIRLLM_CHECK(first_.error == 0);
  }

  const TemporaryFolder folder_;
  const std::string path_;
  UniqueFd listener_;
  Attempt first_;
};

TEST_F(FullQueue, ATurnIsWaitedFor) {
  std::thread daemon([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const UniqueFd taken(accept(listener_.get(), nullptr, nullptr));
    EXPECT_TRUE(taken.valid());
  });
  Attempt second;
  for (int i = 0; i < 100; ++i) {  // a loaded machine may take longer than one turn
    second = try_connect(path_);
    if (second.error == 0) break;
  }
  daemon.join();
  ASSERT_EQ(second.error, 0);
  EXPECT_NE(fcntl(second.socket.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(FullQueue, ItIsNotWaitedForWithoutEnd) {
  const Attempt second = try_connect(path_);
  EXPECT_EQ(second.error, EAGAIN);
  EXPECT_FALSE(second.socket.valid());
}

TEST(ConnectTimeout, MissingSocketIsWaitedForWhenAsked) {
  const TemporaryFolder folder;
  const FakeDaemon daemon(replies("[]"));
  Running client({"--socket", folder / "late", "--connect-timeout", "25", "list", "--json"},
                 on_terminal());
  ASSERT_TRUE(client.wait_for_output("waiting up to 25 s"));
  move_in(daemon, folder / "late");
  const Finished finished = client.finish();
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_NE(finished.out.find("[]"), std::string::npos) << finished.out;
}

TEST(ConnectTimeout, SocketThatRefusesIsWaitedForByDefault) {
  const TemporaryFolder folder;
  const FakeDaemon daemon(replies("[]"));
  const UniqueFd refusing = bound_socket(folder / "s");
  Running client({"--socket", folder / "s", "list", "--json"}, on_terminal());
  ASSERT_TRUE(client.wait_for_output("does not answer yet; waiting up to 10 s"));
  move_in(daemon, folder / "s");
  EXPECT_EQ(client.finish().status, 0);
}

TEST(ConnectTimeout, EndsWithTheSameErrorAsWithoutWaiting) {
  const TemporaryFolder folder;
  const UniqueFd refusing = bound_socket(folder / "refusing");
  for (const char* timeout : {"0", "0.2"}) {
    for (const char* name : {"refusing", "missing"}) {
      const Finished finished =
          run_airllm({"--socket", folder / name, "list", "--connect-timeout", timeout});
      EXPECT_EQ(finished.status, 69);
      EXPECT_NE(finished.err.find("no daemon answers at " + (folder / name)), std::string::npos)
          << finished.err;
    }
  }
}

TEST(ConnectTimeout, FullQueueIsAnErrorOnceTheTimeIsOver) {
  const TemporaryFolder folder;
  const UniqueFd listener = bound_socket(folder / "s");
  ASSERT_EQ(listen(listener.get(), 0), 0);
  std::vector<UniqueFd> waiting;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, (folder / "s").c_str(), (folder / "s").size());
  int result = 0;
  while (result == 0) {
    waiting.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    result = connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  const Finished finished =
      run_airllm({"--socket", folder / "s", "list", "--connect-timeout", "0.1"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_NE(finished.err.find("no daemon answers"), std::string::npos) << finished.err;
}

TEST(ConnectTimeout, BoundsASilentDaemonToo) {
  const FakeDaemon daemon([](Peer& peer) {
    while (peer.read()) {
    }
  });
  const Finished finished = daemon.run({"list", "--connect-timeout", "0.2"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_NE(finished.err.find("has not answered yet"), std::string::npos) << finished.err;
}

TEST(ConnectTimeout, ComesFromTheEnvironmentToo) {
  const TemporaryFolder folder;
  RunOptions options;
  options.environment = {"AIRLLM_CONNECT_TIMEOUT=soon", "AIRLLM_SOCKET=" + (folder / "s")};
  Finished finished = run_airllm({"list"}, options);
  EXPECT_EQ(finished.status, 64);
  EXPECT_NE(finished.err.find("AIRLLM_CONNECT_TIMEOUT: 'soon' is not a number"), std::string::npos);
  options.environment[0] = "AIRLLM_CONNECT_TIMEOUT=20";
  options.terminal = true;
  Running client({"list"}, options);
  EXPECT_TRUE(client.wait_for_output("waiting up to 20 s"));
  client.send_signal(SIGINT);
  EXPECT_EQ(client.finish().status, 130);
}

TEST(Restart, IsNotSeenInAPipe) {
  const Restarting restarting;
  for (const FakeDaemon::Script& first : std::vector<FakeDaemon::Script>{
           fails(kStopping.code, kStopping.message, kStopping.remedy),
           // Accepted, and no token yet.
           [](Peer& peer) {
             const protocol::Request request = peer.read_request();
             peer.event(request.id, protocol::Accepted{});
             peer.event(request.id, protocol::Progress{"load", 1, 2, "bytes"});
             peer.event(request.id, protocol::Failed{kStopping});
           },
           // No client is taken any more; so it greets none.
           [](Peer& peer) { peer.event(0, protocol::Failed{kStopping}); },
           // It ended with the connection in its queue.
           [](Peer& peer) { peer.close(); }}) {
    restarting.connections->store(0);
    const FakeDaemon daemon(restarting.script(first, answers({"Par", "is"})));
    const Finished finished = daemon.run({"ask", "hi"});
    EXPECT_EQ(finished.status, 0);
    EXPECT_EQ(finished.out, "Paris");
    EXPECT_EQ(finished.err, "");
    EXPECT_EQ(restarting.connections->load(), 2);
  }
}

TEST(Restart, IsToldOnceOnATerminal) {
  const Restarting restarting;
  const FakeDaemon daemon(restarting.script(
      fails(kStopping.code, kStopping.message, kStopping.remedy), answers({"Paris"})));
  const Finished finished = daemon.run({"ask", "hi"}, on_terminal());
  EXPECT_EQ(finished.status, 0);
  const std::string notice = "airllm: the daemon is stopping; waiting up to 10 s";
  const size_t first = finished.out.find(notice);
  EXPECT_NE(first, std::string::npos) << finished.out;
  EXPECT_EQ(finished.out.find(notice, first + 1), std::string::npos) << finished.out;
}

TEST(Restart, AfterTheFirstTokenNothingIsSentAgain) {
  const auto token_then_stop = [](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::Accepted{});
    peer.event(request.id, protocol::Token{1, "Par", {}});
    peer.event(request.id, protocol::Failed{kStopping});
  };
  for (const char* form : {"--no-stdin", "--json", "--stream-json"}) {
    const Restarting restarting;
    const FakeDaemon daemon(restarting.script(token_then_stop, answers({"Paris"})));
    EXPECT_EQ(daemon.run({"ask", form, "hi"}).status, 69);
    EXPECT_EQ(restarting.connections->load(), 1);
  }
}

TEST(Restart, EventsThatWerePrintedAreNotPrintedAgain) {
  const Restarting restarting;
  const FakeDaemon daemon(restarting.script(
      [](Peer& peer) {
        const protocol::Request request = peer.read_request();
        peer.event(request.id, protocol::Accepted{});
        peer.event(request.id, protocol::Failed{kStopping});
      },
      answers({"Paris"})));
  EXPECT_EQ(daemon.run({"ask", "--stream-json", "hi"}).status, 69);
  EXPECT_EQ(restarting.connections->load(), 1);
}

TEST(Restart, ThatDoesNotComeIsTheDaemonsOwnError) {
  const FakeDaemon daemon(fails(kStopping.code, kStopping.message, kStopping.remedy));
  const Finished finished = daemon.run({"ask", "hi", "--connect-timeout", "0.2"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_NE(finished.err.find(kStopping.message), std::string::npos) << finished.err;
}

TEST(Restart, JobNumbersAreNotTakenToTheNextDaemon) {
  const Restarting restarting;
  const FakeDaemon daemon(restarting.script(
      [](Peer& peer) { peer.event(0, protocol::Failed{kStopping}); }, replies("{}")));
  EXPECT_EQ(daemon.run({"cancel", "3"}).status, 69);
  EXPECT_EQ(restarting.connections->load(), 1);
}

}  // namespace
}  // namespace airllm::client

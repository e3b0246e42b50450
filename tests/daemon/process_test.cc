// The daemon as a process: locks, sockets, signals, exit statuses.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "tests/daemon/temporary_dir.h"
#include "tests/daemon/test_peer.h"

namespace airllm::daemon {
namespace {

namespace fs = std::filesystem;

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

void bind_socket_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  AIRLLM_CHECK(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
}

// One fake airllmd with its stderr in a file.
class Process {
 public:
  Process(std::vector<std::string> args, std::string log) : log_(std::move(log)) {
    args.insert(args.begin(), FAKE_AIRLLMD);
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int fd = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(fd, STDERR_FILENO);
    ::dup2(fd, STDOUT_FILENO);
    ::unsetenv("XDG_RUNTIME_DIR");
    ::execv(argv[0], argv.data());
    ::_exit(99);
  }
  ~Process() {
    if (status_ >= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The exit status, 128 and more for a signal; -1 when it does not end.
  int wait() {
    int status = 0;
    eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_ && (ended_ = true); });
    if (!ended_) return -1;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return status_;
  }
  void signal(int number) const { ::kill(pid_, number); }
  pid_t pid() const { return pid_; }
  std::string log() const { return content_of(log_); }

 private:
  std::string log_;
  pid_t pid_ = -1;
  int status_ = -1;
  bool ended_ = false;
};

class ProcessTest : public ::testing::Test {
 protected:
  std::unique_ptr<Process> launch(std::vector<std::string> more = {}, std::string socket = "s") {
    std::vector<std::string> args{"--foreground", "--socket", dir_ / socket, "--store",
                                  dir_ / "store"};
    args.insert(args.end(), more.begin(), more.end());
    return std::make_unique<Process>(args, dir_ / ("log" + std::to_string(++count_)));
  }
  std::unique_ptr<Process> started(std::vector<std::string> more = {}) {
    fs::create_directory(dir_ / "store");
    auto process = launch(std::move(more));
    AIRLLM_CHECK(
        eventually([&] { return process->log().find("listens on") != std::string::npos; }));
    return process;
  }
  TestPeer greeted() {
    TestPeer peer = TestPeer::connect(dir_ / "s");
    peer.hello();
    return peer;
  }

  TemporaryDir dir_;
  int count_ = 0;
};

TEST_F(ProcessTest, AnswersAndLeavesNothingBehind) {
  auto daemon = started();
  struct stat info {};
  ASSERT_EQ(::stat((dir_ / "s").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(content_of(dir_ / "s.lock"), std::to_string(daemon->pid()) + "\n");
  {
    TestPeer peer = greeted();
    peer.generate(1, "short");
    EXPECT_TRUE(peer.wait_for<protocol::Generated>(1).has_value());
  }
  daemon->signal(SIGTERM);
  EXPECT_EQ(daemon->wait(), 0) << daemon->log();
  EXPECT_FALSE(fs::exists(dir_ / "s"));
  EXPECT_FALSE(fs::exists(dir_ / "s.lock"));
}

TEST_F(ProcessTest, ASecondDaemonNamesTheFirst) {
  auto first = started();
  auto second = launch();
  EXPECT_EQ(second->wait(), 75);
  EXPECT_NE(second->log().find("pid " + std::to_string(first->pid())), std::string::npos)
      << second->log();
  TestPeer peer = greeted();
}

TEST_F(ProcessTest, AKilledDaemonsSocketIsReplaced) {
  auto first = started();
  first->signal(SIGKILL);
  EXPECT_EQ(first->wait(), 128 + SIGKILL);
  EXPECT_TRUE(fs::is_socket(dir_ / "s"));
  auto second = started();
  TestPeer peer = greeted();
}

TEST_F(ProcessTest, AForeignStaleSocketIsReplaced) {
  bind_socket_at(dir_ / "s");
  auto daemon = started();
  TestPeer peer = greeted();
}

TEST_F(ProcessTest, WhatIsNoSocketIsRefused) {
  std::ofstream(dir_ / "s") << "precious";
  auto daemon = launch();
  EXPECT_EQ(daemon->wait(), 73);
  EXPECT_EQ(content_of(dir_ / "s"), "precious");
  EXPECT_NE(daemon->log().find("not a socket"), std::string::npos);
}

TEST_F(ProcessTest, APathTooLongNamesTheLimit) {
  auto daemon = launch({}, std::string(108 - dir_.path().size() - 1, 'x'));
  EXPECT_EQ(daemon->wait(), 64);
  EXPECT_NE(daemon->log().find("107"), std::string::npos);
}

TEST_F(ProcessTest, TheLongestPathWorks) {
  fs::create_directory(dir_ / "store");
  const std::string name(107 - dir_.path().size() - 1, 'x');
  auto daemon = launch({}, name);
  EXPECT_TRUE(eventually([&] { return fs::is_socket(dir_ / name); })) << daemon->log();
  TestPeer peer = TestPeer::connect(dir_ / name);
  peer.hello();
}

TEST_F(ProcessTest, AMissingDirectoryIsNamed) {
  auto daemon = launch({}, "absent/s");
  EXPECT_EQ(daemon->wait(), 66);
  EXPECT_NE(daemon->log().find("absent"), std::string::npos);
}

TEST_F(ProcessTest, WithoutARuntimeDirASocketIsAskedFor) {
  if (::geteuid() == 0) GTEST_SKIP() << "root has /run/airllm";
  Process daemon({"--store", dir_ / "store"}, dir_ / "log");
  EXPECT_EQ(daemon.wait(), 64);
  EXPECT_NE(daemon.log().find("--socket"), std::string::npos);
}

TEST_F(ProcessTest, WrongFlagsExitAsSysexitsSays) {
  EXPECT_EQ(launch({"--nonsense"})->wait(), 64);
  EXPECT_EQ(launch({"--ram", "much"})->wait(), 64);
  EXPECT_EQ(launch({"--config", dir_ / "absent.conf"})->wait(), 66);
  std::ofstream(dir_ / "wrong.conf") << "ram = 1G\nnonsense = 1\n";
  auto daemon = launch({"--config", dir_ / "wrong.conf"});
  EXPECT_EQ(daemon->wait(), 78);
  EXPECT_NE(daemon->log().find("wrong.conf:2: unknown setting 'nonsense'"), std::string::npos);
  auto help = launch({"--help"});
  EXPECT_EQ(help->wait(), 0);
  EXPECT_NE(help->log().find("--stop-timeout"), std::string::npos);
  EXPECT_EQ(launch({"--version"})->wait(), 0);
}

TEST_F(ProcessTest, SigtermGivesJobsTheirDeadline) {
  auto daemon = started({"--stop-timeout", "1"});
  TestPeer peer = greeted();
  peer.generate(1, "silent");
  ASSERT_TRUE(peer.wait_for<protocol::Accepted>(1).has_value());
  daemon->signal(SIGTERM);
  const Error error = peer.failure(1);
  EXPECT_EQ(error.code, ErrorCode::kUnavailable);
  peer.close();
  EXPECT_EQ(daemon->wait(), 0);
}

TEST_F(ProcessTest, ASecondSignalDoesNotWait) {
  auto daemon = started({"--stop-timeout", "3600"});
  TestPeer peer = greeted();
  peer.generate(1, "silent");
  ASSERT_TRUE(peer.wait_for<protocol::Accepted>(1).has_value());
  daemon->signal(SIGINT);
  ASSERT_TRUE(eventually([&] { return daemon->log().find("to finish") != std::string::npos; }));
  daemon->signal(SIGTERM);
  EXPECT_EQ(peer.failure(1).code, ErrorCode::kUnavailable);
  peer.close();
  EXPECT_EQ(daemon->wait(), 0);
  EXPECT_FALSE(fs::exists(dir_ / "s"));
}

}  // namespace
}  // namespace airllm::daemon

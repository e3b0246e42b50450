// --spawn with programs that stand in for airllmd: the client looks for it beside itself, then on
// PATH, and the tests run a copy of the client from a folder of their own.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

namespace fs = std::filesystem;

// Runs `airllm --spawn ARGS` from a folder where airllmd is this shell script.
Finished run_with_daemon_script(const TemporaryFolder& folder, const std::string& script,
                                std::vector<std::string> args) {
  RunOptions options;
  options.program = folder / "bin/airllm";
  options.environment = {"HOME=" + folder.path(), "XDG_RUNTIME_DIR=" + folder.path()};
  fs::create_directories(folder / "bin");
  fs::copy_file(AIRLLM_PROGRAM, options.program, fs::copy_options::overwrite_existing);
  folder.write("bin/airllmd", "#!/bin/sh\n" + script);
  EXPECT_EQ(chmod((folder / "bin/airllmd").c_str(), 0755), 0);
  args.insert(args.begin(), "--spawn");
  return run_airllm(args, options);
}

TEST(Spawn, DaemonThatEndsIsReportedWithItsLog) {
  const TemporaryFolder folder;
  const Finished finished =
      run_with_daemon_script(folder, "echo 'no room on disk' >&2\nexit 74\n", {"list"});
  EXPECT_EQ(finished.status, 74);
  EXPECT_NE(finished.err.find("ended with status 74"), std::string::npos) << finished.err;
  EXPECT_NE(finished.err.find("no room on disk"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "airllm/airllm.sock.log")) << "the message has all of it";
}

TEST(Spawn, LogThatIsLongerThanTheMessageStays) {
  const TemporaryFolder folder;
  const Finished finished =
      run_with_daemon_script(folder, "head -c 3000 /dev/zero | tr '\\0' x >&2\nexit 7\n", {"list"});
  EXPECT_EQ(finished.status, 69);
  EXPECT_NE(finished.err.find("its log is " + (folder / "airllm/airllm.sock.log")),
            std::string::npos)
      << finished.err;
  EXPECT_TRUE(fs::exists(folder / "airllm/airllm.sock.log"));
}

TEST(Spawn, FolderOfTheSocketMustBeThere) {
  const TemporaryFolder folder;
  const Finished finished =
      run_with_daemon_script(folder, "exit 1\n", {"--socket", folder / "missing/s", "list"});
  EXPECT_EQ(finished.status, 66);
  EXPECT_NE(finished.err.find("the socket's folder " + (folder / "missing") + " is not there"),
            std::string::npos)
      << finished.err;
  EXPECT_NE(finished.err.find("--socket PATH"), std::string::npos);
}

TEST(Spawn, PrivateDaemonHasAPrivateStore) {
  const TemporaryFolder folder;
  const std::string script = "echo \"$@\"\nexit 1\n";
  Finished finished = run_with_daemon_script(folder, script, {"list"});
  EXPECT_NE(finished.err.find("--foreground --socket " + (folder / "airllm/airllm.sock") +
                              " --store " + (folder / ".local/share/airllm\n")),
            std::string::npos)
      << finished.err;
  // The user's own settings may name another.
  folder.write(".config/airllm/airllmd.conf", "store = /mine\n");
  finished = run_with_daemon_script(folder, script, {"list"});
  EXPECT_EQ(finished.err.find("--store"), std::string::npos) << finished.err;
}

TEST(Spawn, GivesSocketAndStoreAsAbsolutePaths) {
  const TemporaryFolder folder;
  const Finished finished = run_with_daemon_script(
      folder, "echo \"$@\"\nexit 1\n", {"--socket", folder / "my.sock", "list", "--store", "/s"});
  EXPECT_EQ(finished.status, 69) << finished.err;
  EXPECT_NE(finished.err.find("--foreground --socket " + (folder / "my.sock") + " --store /s"),
            std::string::npos)
      << finished.err;
}

TEST(Spawn, RunningDaemonIsUsed) {
  const FakeDaemon daemon(replies("[]"));
  EXPECT_EQ(daemon.run({"--spawn", "list", "--json"}).out, "[]\n");
}

TEST(Spawn, MissingProgramIsNamed) {
  const TemporaryFolder folder;
  RunOptions options;
  options.program = folder / "bin/airllm";
  options.environment = {"HOME=" + folder.path(), "XDG_RUNTIME_DIR=" + folder.path()};
  fs::create_directories(folder / "bin");
  fs::copy_file(AIRLLM_PROGRAM, options.program);
  const Finished finished = run_airllm({"--spawn", "list"}, options);
  if (finished.err.find("cannot start airllmd") == std::string::npos) {
    GTEST_SKIP() << "an airllmd is installed on PATH";
  }
  EXPECT_EQ(finished.status, 69);
}

}  // namespace
}  // namespace airllm::client

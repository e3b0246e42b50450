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
  EXPECT_EQ(finished.status, 69);
  EXPECT_NE(finished.err.find("ended with status 74"), std::string::npos) << finished.err;
  EXPECT_NE(finished.err.find("no room on disk"), std::string::npos);
  EXPECT_NE(finished.err.find(folder / "airllm/airllm.sock.log"), std::string::npos);
}

TEST(Spawn, GivesSocketAndStoreAsAbsolutePaths) {
  const TemporaryFolder folder;
  const Finished finished = run_with_daemon_script(
      folder, "echo \"$@\"\nexit 1\n", {"--socket", folder / "my.sock", "list", "--store", "/s"});
  EXPECT_EQ(finished.status, 69);
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

// The command line as a table: what each form exits with, and what it says.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/json.h"
#include "client/command.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

struct Case {
  std::vector<std::string> args;
  int status;
  std::string says;  // on stdout for status 0, else on stderr
};

void check(const std::vector<Case>& cases, const RunOptions& options) {
  for (const Case& c : cases) {
    std::string shown;
    for (const std::string& arg : c.args) shown += " '" + arg.substr(0, 60) + "'";
    SCOPED_TRACE("airllm" + shown);
    const Finished finished = run_airllm(c.args, options);
    EXPECT_EQ(finished.status, c.status);
    const std::string& said = c.status == 0 ? finished.out : finished.err;
    EXPECT_NE(said.find(c.says), std::string::npos)
        << "out: " << finished.out << "\nerr: " << finished.err;
    EXPECT_TRUE((c.status == 0 ? finished.err : finished.out).empty());
  }
}

TEST(CommandLine, WithoutDaemon) {
  const TemporaryFolder home;
  RunOptions options;
  options.environment = {"HOME=" + home.path(), "XDG_RUNTIME_DIR=" + home.path()};
  const std::string long_path(108, 'x');
  check(
      {
          {{}, 64, "no command is given"},
          {{"--help"}, 0, "Commands:"},
          {{"help"}, 0, "Commands:"},
          {{"help", "ask"}, 0, "Usage: airllm ask"},
          {{"ask", "--help"}, 0, "--repetition-penalty"},
          {{"ask", "hello", "-h"}, 0, "Usage: airllm ask [OPTIONS] PROMPT..."},
          {{"version"}, 0, "airllm 0."},
          {{"--version"}, 0, "airllm 0."},
          {{"--json", "version"}, 0, "\"protocol\":1"},
          {{"--frobnicate"}, 64, "unknown option '--frobnicate'"},
          {{"-m", "demo", "ask", "hi"}, 64, "'airllm ask -m MODEL'"},
          {{"--", "version"}, 0, "airllm 0."},
          {{"help", "--json", "ask"}, 0, "Usage: airllm ask"},
          {{"ask", "--no-stdin=true", "hi"}, 64, "--no-stdin takes no value: '--no-stdin=true'"},
          {{"--spawn=yes", "list"}, 64, "--spawn takes no value"},
          {{"ask", "--system", "--json", "a\xff"}, 65, "byte offset 1"},
          {{"lst"}, 64, "did you mean: list?"},
          {{"shwo"}, 64, "did you mean: show"},
          {{"xyzzy"}, 64, "see 'airllm --help'"},
          {{"run", "tiny", "hi"}, 64, "airllm ask -m MODEL"},
          {{"serve"}, 64, "airllmd --foreground"},
          {{"stop"}, 64, "MODEL is missing"},
          {{"quit"}, 64, "airllm cancel JOB"},
          {{"unload"}, 64, "airllm stop MODEL"},
          {{"pull", "x"}, 64, "airllm split DIR"},
          {{"list", "x"}, 64, "not expected: x"},
          {{"list", "--frob"}, 64, "see 'airllm list --help'"},
          {{"list", "--connect-timeout", "soon"}, 64, "--connect-timeout: 'soon' is not a number"},
          {{"--connect-timeout=-1", "list"}, 64, "--connect-timeout: '-1' must be from 0"},
          {{"doctor", "--help"}, 0, "Usage: airllm doctor"},
          {{"doctor", "x"}, 64, "not expected: x"},
          {{"diagnose"}, 64, "airllm doctor"},
          {{"bench"}, 64, "no bench is named"},
          {{"bench", "--help"}, 0, "Usage: airllm bench stream [OPTIONS] [MODEL]"},
          {{"bench", "strem", "demo"}, 64, "there is no bench 'strem'"},
          {{"bench", "stream", "a", "b"}, 64, "one argument too many: 'b'"},
          {{"bench", "stream", "--sweeps", "0", "demo"}, 64, "--sweeps"},
          {{"bench", "stream", "--sweeps", "x", "demo"}, 64, "--sweeps"},
          {{"bench", "stream", "a\nb"}, 64, "no model's name"},
          {{"bench", "stream", "demo"}, 69, "no daemon answers"},
          {{"bench", "stream", "--rounds", "2"}, 64, "bench stream does not take --rounds"},
          {{"bench", "kernels"}, 69, "no daemon answers"},
          {{"bench", "kernels", "demo"}, 64, "bench kernels does not take a model"},
          {{"bench", "kernels", "-m", "demo"}, 64, "bench kernels does not take a model"},
          {{"bench", "kernels", "--sweeps", "2"}, 64, "bench kernels does not take --sweeps"},
          {{"bench", "kernels", "--rounds", "0"}, 64, "--rounds"},
          {{"benchmark"}, 64, "airllm bench stream MODEL"},
          {{"ask"}, 64, "Usage: airllm ask"},
          {{"ask", ""}, 64, "nothing to ask"},
          {{"ask", "--raw"}, 64, "nothing to ask"},
          {{"ask", "--raw", ""}, 69, "no daemon answers"},
          {{"ask", "hi"}, 69, "airllmd --foreground &"},
          {{"ask", "hi"}, 69, "systemctl --user start airllmd"},
          {{"ask", "hi"}, 69, "airllm --spawn ask"},
          {{"ask", "a\xff"}, 65, "byte offset 1"},
          {{"ask", "--system", "\xc3", "hi"}, 65, "--system is not text"},
          {{"ask", "--temp", "-0.1", "hi"}, 64, "--temperature: '-0.1' must be at least 0"},
          {{"ask", "--temperature", "nan", "hi"}, 64, "--temperature"},
          {{"ask", "--temperature", "1,5", "hi"}, 64, "'1,5' is not a number"},
          {{"ask", "--top-k", "010x", "hi"}, 64, "'010x' is not a whole number"},
          {{"ask", "--top-k", "-2", "hi"}, 64, "--top-k: '-2' must be at least -1"},
          {{"ask", "--top-p", "0", "hi"}, 64, "above 0, at most 1"},
          {{"ask", "--top-p", "1.1", "hi"}, 64, "above 0, at most 1"},
          {{"ask", "--min-p", "2", "hi"}, 64, "from 0 to 1"},
          {{"ask", "--repeat-penalty", "0", "hi"}, 64, "--repetition-penalty"},
          {{"ask", "-s", "-3", "hi"}, 64, "--seed"},
          {{"ask", "-s", "18446744073709551616", "hi"}, 64, "out of range"},
          {{"ask", "-n", "many", "hi"}, 64, "--max-tokens"},
          {{"ask", "-n", "-2", "hi"}, 64, "'-2' is not a whole number of 0 or more"},
          {{"ask", "-s", "-1", "-n", "-1", "--top-k", "-1", "hi"}, 69, "no daemon"},
          {{"ask", "--logprobs", "3", "hi"}, 64, "add --json"},
          {{"ask", "--prompt-logprobs", "3", "hi"}, 64, "add --json"},
          {{"ask", "--logprobs", "0", "hi"}, 69, "no daemon"},
          {{"ask", "-n"}, 64, "--max-tokens"},
          {{"ask", "--stop", "", "hi"}, 64, "--stop"},
          {{"ask", "--keep-alive", "soon", "hi"}, 64, "--keep-alive: not a duration: 'soon'"},
          {{"ask", "--keep-alive", "forever", "hi"}, 69, "no daemon"},
          {{"ask", "--prompt-ids", "1,,2"}, 64, "--prompt-ids"},
          {{"ask", "--prompt-ids", ""}, 64, "--prompt-ids"},
          {{"ask", "--prompt-ids", "2147483648"}, 64, "too large"},
          {{"ask", "--prompt-ids", "1,2", "hi"}, 64, "no PROMPT"},
          {{"ask", "--prompt-ids", "1, ,2"}, 64, "commas between them"},
          {{"ask", "--prompt-ids", "1,"}, 64, "commas between them"},
          {{"ask", "--prompt-ids", "1 2x"}, 64, "'2x' is not a whole number"},
          {{"ask", "--prompt-ids", "1 2"}, 69, "no daemon"},
          {{"ask", "--prompt-ids", "1,2"}, 69, "no daemon"},
          {{"ask", "--prompt-ids", " 1, 2,\n3 "}, 69, "no daemon"},
          {{"ask", "--raw", "--system", "x", "hi"}, 64, "exclude each other"},
          {{"ask", "-m", "", "hi"}, 64, "name is empty"},
          {{"split"}, 64, "DIR is missing"},
          {{"split", "a", "b"}, 64, "one argument too many: 'b'"},
          {{"split", home / "nothing"}, 66, "name the folder that holds config.json"},
          {{"split", "/dev/null"}, 66, "not a file"},
          {{"cancel"}, 64, "JOB is missing"},
          {{"cancel", "x"}, 64, "'x' is not a whole number"},
          {{"cancel", "x"}, 64, "airllm ps"},
          {{"rm"}, 64, "MODEL is missing"},
          {{"rm", "a\nb"}, 64, "no model's name"},
          {{"show", "a", "b"}, 64, "one argument too many"},
          {{"default", "--unset", "x"}, 64, "--unset"},
          {{"--store", "x", "list"}, 64, "--spawn"},
          {{"--socket", long_path, "list"}, 64, "107 bytes"},
          {{"list", "--socket", long_path}, 64, "107 bytes"},
          {{"list", "--socket", home / "none.sock"}, 69, "none.sock"},
      },
      options);
}

TEST(CommandLine, ErrorsAreJsonWhenAskedFor) {
  const TemporaryFolder home;
  RunOptions options;
  options.environment = {"HOME=" + home.path(), "XDG_RUNTIME_DIR=" + home.path()};
  const std::vector<Case> cases{
      {{"--json", "list"}, 69, "unavailable"},     {{"list", "--json"}, 69, "unavailable"},
      {{"list", "--json", "--frob"}, 64, "usage"}, {{"ask", "--json", "a\xff"}, 65, "data"},
      {{"--json", "ask", "a\xff"}, 65, "data"},    {{"ask", "--json=1", "x"}, 64, "usage"},
      {{"-m", "x", "ask", "--json"}, 64, "usage"},
  };
  for (const Case& c : cases) {
    const Finished finished = run_airllm(c.args, options);
    EXPECT_EQ(finished.status, c.status);
    EXPECT_TRUE(finished.err.empty());
    const Result<Json> json = parse_json(finished.out, "output");
    ASSERT_TRUE(json.has_value()) << finished.out;
    EXPECT_EQ((*json)["error"]["code"], c.says);
    EXPECT_FALSE((*json)["error"]["message"].get<std::string>().empty());
    EXPECT_FALSE((*json)["error"]["remedy"].get<std::string>().empty()) << finished.out;
  }
  options.stdout_is_full = true;
  const Finished full = run_airllm({"list", "--json"}, options);
  EXPECT_EQ(full.status, 69);
  EXPECT_NE(full.err.find("no daemon answers"), std::string::npos) << full.err;
  options.stdout_is_full = false;
  const Finished both = run_airllm({"ask", "--json", "--stream-json", "x"}, options);
  EXPECT_EQ(both.status, 64);
  EXPECT_EQ((*parse_json(both.out, "output"))["type"], "error");
}

TEST(CommandLine, HelpShowsEachValueOnce) {
  const Finished help = run_airllm({"ask", "--help"});
  EXPECT_NE(help.out.find("--prompt-ids ID,..."), std::string::npos) << help.out;
  EXPECT_EQ(help.out.find("ID,... ..."), std::string::npos);
  EXPECT_EQ(help.out.find("--socket PATH ..."), std::string::npos);
}

TEST(CommandLine, EverySocketThatWasTriedIsNamed) {
  const TemporaryFolder home;
  RunOptions options;
  options.environment = {"HOME=" + home.path(), "XDG_RUNTIME_DIR=/tmp/" + std::string(100, 'x')};
  const Finished finished = run_airllm({"list"}, options);
  if (finished.status == 0) GTEST_SKIP() << "a daemon of the system's runs";
  EXPECT_EQ(finished.status, 64) << finished.err;
  EXPECT_NE(finished.err.find("a Unix socket's path has"), std::string::npos);
  EXPECT_NE(finished.err.find("/run/airllm/airllm.sock"), std::string::npos) << finished.err;
}

TEST(CommandLine, SocketIsFoundInOrder) {
  const FakeDaemon daemon(replies("[]"));
  const TemporaryFolder home;
  const std::string option = "--socket=" + daemon.socket();
  RunOptions wrong;
  wrong.environment = {"HOME=" + home.path(), "AIRLLM_SOCKET=" + (home / "wrong")};
  EXPECT_EQ(run_airllm({"list", "--json"}, wrong).status, 69);
  EXPECT_EQ(run_airllm({option, "list", "--json"}, wrong).out, "[]\n");
  EXPECT_EQ(run_airllm({"list", option, "--json"}, wrong).out, "[]\n");
  EXPECT_EQ(daemon.run({"list", "--json"}).out, "[]\n");
}

TEST(CommandLine, NoPermissionOnSocketExits77) {
  if (geteuid() == 0) GTEST_SKIP() << "root may connect to every socket";
  const FakeDaemon daemon(replies("[]"));
  ASSERT_EQ(chmod(daemon.socket().c_str(), 0), 0);
  const Finished finished = daemon.run({"list"});
  EXPECT_EQ(finished.status, 77);
  EXPECT_NE(finished.err.find("may not connect to " + daemon.socket()), std::string::npos);
}

TEST(CommandLine, EverySubcommandHasHelp) {
  for (const Command& command : commands()) {
    const Finished finished = run_airllm({std::string(command.name), "--help"});
    EXPECT_EQ(finished.status, 0);
    EXPECT_NE(finished.out.find("--json"), std::string::npos) << command.name;
  }
}

TEST(CommandLine, DefaultModelIsKeptInTheUsersFolder) {
  const TemporaryFolder home;
  RunOptions options;
  options.environment = {"HOME=" + home.path(), "XDG_RUNTIME_DIR=" + home.path()};
  EXPECT_EQ(run_airllm({"default", "org/tiny"}, options).status, 0);
  const std::string file = home / ".config/airllm/default";
  EXPECT_EQ(run_airllm({"default"}, options).out, "org/tiny (from " + file + ")\n");
  options.environment.emplace_back("AIRLLM_MODEL=other");
  EXPECT_EQ(run_airllm({"default", "--json"}, options).out,
            "{\"model\":\"other\",\"source\":\"AIRLLM_MODEL\"}\n");
  options.environment.pop_back();
  EXPECT_EQ(run_airllm({"default", "--unset"}, options).status, 0);
  EXPECT_EQ(run_airllm({"default", "--json"}, options).out, "{\"model\":null,\"source\":null}\n");
}

}  // namespace
}  // namespace airllm::client

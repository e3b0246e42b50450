#include "daemon/options.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/daemon/temporary_dir.h"

namespace airllm::daemon {
namespace {

class OptionsTest : public ::testing::Test {
 protected:
  Environment user() {
    Environment environment;
    environment.home = dir_.path();
    environment.xdg_runtime_dir = "/run/user/7";
    return environment;
  }
  std::string config(const std::string& text) {
    const std::string path = dir_ / "c.conf";
    std::ofstream(path) << text;
    return path;
  }
  TemporaryDir dir_;
};

TEST_F(OptionsTest, DefaultsOfAUserFollowXdg) {
  const auto line = parse_command_line({}, user());
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->options.socket_path, "/run/user/7/airllm/airllm.sock");
  EXPECT_EQ(line->options.store_dir, dir_ / ".local/share/airllm");
  EXPECT_TRUE(line->options.default_socket);
  EXPECT_FALSE(line->options.system);
  Environment environment = user();
  environment.xdg_data_home = "/data";
  EXPECT_EQ(parse_command_line({}, environment)->options.store_dir, "/data/airllm");
  environment.xdg_data_home = "relative";
  EXPECT_EQ(parse_command_line({}, environment)->options.store_dir, dir_ / ".local/share/airllm");
}

TEST_F(OptionsTest, DefaultsOfTheSystem) {
  Environment root;
  root.root = true;
  const auto line = parse_command_line({}, root);
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->options.socket_path, "/run/airllm/airllm.sock");
  EXPECT_EQ(line->options.store_dir, "/var/lib/airllm");
  EXPECT_TRUE(line->options.system);
  // A login of root's has places of its own, as the client sees it too.
  root.xdg_runtime_dir = "/run/user/0";
  root.home = dir_.path();
  const auto login = parse_command_line({}, root);
  ASSERT_TRUE(login.has_value());
  EXPECT_EQ(login->options.socket_path, "/run/user/0/airllm/airllm.sock");
  EXPECT_EQ(login->options.store_dir, dir_ / ".local/share/airllm");
  EXPECT_FALSE(login->options.system);
}

TEST_F(OptionsTest, WhatUsersMay) {
  const auto none = parse_command_line({}, user());
  ASSERT_TRUE(none.has_value());
  EXPECT_FALSE(none->options.admin_group);
  EXPECT_FALSE(none->options.store_quota_bytes);
  EXPECT_EQ(none->options.max_splits, 4u);
  EXPECT_EQ(none->options.max_splits_per_user, 2u);
  EXPECT_EQ(none->options.split_memory_bytes, uint64_t{40} << 20);
  const auto line = parse_command_line(
      {"--config", config("admin-group = root\nstore-quota = 10G\nmax-splits = 9\n"),
       "--max-splits-per-user", "3", "--split-memory", "24M"},
      user());
  ASSERT_TRUE(line.has_value()) << line.error().message;
  EXPECT_EQ(line->options.admin_group, gid_t{0});
  EXPECT_EQ(line->options.store_quota_bytes, uint64_t{10} << 30);
  EXPECT_EQ(line->options.max_splits, 9u);
  EXPECT_EQ(line->options.max_splits_per_user, 3u);
  EXPECT_EQ(line->options.split_memory_bytes, uint64_t{24} << 20);
  EXPECT_FALSE(parse_command_line({"--split-memory", "23M"}, user()).has_value());
  const auto unknown = parse_command_line({"--admin-group", "no-such-group"}, user());
  EXPECT_EQ(unknown.error().code, ErrorCode::kConfig);
  EXPECT_NE(unknown.error().message.find("no-such-group"), std::string::npos);
}

TEST_F(OptionsTest, HowLongModelsStay) {
  const auto none = parse_command_line({}, user());
  EXPECT_EQ(none->options.keep_alive, std::chrono::minutes(5));
  EXPECT_TRUE(none->options.keep.empty());
  EXPECT_FALSE(none->options.exit_when_idle);
  Environment service = user();
  service.keep_alive = "30m";
  EXPECT_EQ(parse_command_line({}, service)->options.keep_alive, std::chrono::minutes(30));
  const std::string path = config("keep-alive = forever\nkeep = a, org/b  c\n");
  const auto file = parse_command_line({"--config", path, "--exit-when-idle"}, service);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->options.keep_alive, kForever);
  EXPECT_EQ(file->options.keep, (std::vector<std::string>{"a", "org/b", "c"}));
  EXPECT_TRUE(file->options.exit_when_idle);
  const auto flags = parse_command_line(
      {"--config", path, "--keep", "x", "--keep-alive", "90s", "--keep", "y"}, service);
  ASSERT_TRUE(flags.has_value()) << flags.error().message;
  EXPECT_EQ(flags->options.keep_alive, std::chrono::seconds(90));
  EXPECT_EQ(flags->options.keep, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(changed_settings(file->options, flags->options).live,
            (std::vector<std::string>{"keep-alive", "keep"}));
  EXPECT_EQ(parse_command_line({"--keep-alive", "soon"}, user()).error().code, ErrorCode::kUsage);
  service.keep_alive = "soon";
  EXPECT_EQ(parse_command_line({}, service).error().code, ErrorCode::kConfig);
}

TEST_F(OptionsTest, WithoutARuntimeDirASocketMustBeGiven) {
  Environment environment = user();
  environment.xdg_runtime_dir.clear();
  EXPECT_EQ(parse_command_line({}, environment).error().code, ErrorCode::kUsage);
  EXPECT_TRUE(parse_command_line({"--socket", "/tmp/s"}, environment).has_value());
  EXPECT_TRUE(parse_command_line({}, environment, true).has_value());
}

TEST_F(OptionsTest, FlagsGoBeforeTheFile) {
  const std::string path = config(
      "# a comment\n\n  ram = 1G  \r\nkv=2M\nsocket = /a b#c\nthreads = 3\nlog-level = debug\n"
      "model = demo\nstop-timeout = 7\nsend-buffer = 2M\nmax-connections = 4\nmax-jobs = 5\n"
      "max-connections-per-user = 3\nmax-jobs-per-user = 2\nsend-timeout = 9\nsend-buffers = "
      "9M\nsend-buffers-per-user = 8M\nmax-prompt = "
      "1M\nmax-prompts = 4M\n"
      "max-prompts-per-user = 2M\nkv-per-user = 1M\nmax-logprobs = 1000\nstore = /x");
  const auto line = parse_command_line({"--config", path, "--ram", "512K"}, user());
  ASSERT_TRUE(line.has_value()) << line.error().message;
  const Options& options = line->options;
  EXPECT_EQ(options.ram_bytes, 512u << 10);
  EXPECT_EQ(options.kv_bytes, 2u << 20);
  EXPECT_EQ(options.socket_path, "/a b#c");
  EXPECT_FALSE(options.default_socket);
  EXPECT_EQ(options.threads, 3u);
  EXPECT_EQ(options.log_level, log::Level::kDebug);
  EXPECT_EQ(options.model, "demo");
  EXPECT_EQ(options.stop_timeout_seconds, 7u);
  EXPECT_EQ(options.send_buffer_bytes, 2u << 20);
  EXPECT_EQ(options.max_connections, 4u);
  EXPECT_EQ(options.max_jobs, 5u);
  EXPECT_EQ(options.connections_per_user(), 3u);
  EXPECT_EQ(options.max_jobs_per_user, 2u);
  EXPECT_EQ(options.send_timeout_seconds, 9u);
  EXPECT_EQ(options.send_buffers_bytes, 9u << 20);
  EXPECT_EQ(options.send_buffers_per_user(), 8u << 20);
  EXPECT_EQ(options.max_prompt_bytes, 1u << 20);
  EXPECT_EQ(options.max_prompts_bytes, 4u << 20);
  EXPECT_EQ(options.max_prompts_per_user_bytes, 2u << 20);
  EXPECT_EQ(options.kv_per_user_bytes, 1u << 20);
  EXPECT_EQ(options.max_logprobs, 1000u);
  EXPECT_EQ(options.store_dir, "/x");
}

TEST_F(OptionsTest, WithoutASettingAnEighthIsLeftToOthers) {
  const auto line = parse_command_line({"--max-connections", "80"}, user());
  EXPECT_EQ(line->options.connections_per_user(), 70u);
  EXPECT_EQ(line->options.jobs_per_user(), 56u);
}

TEST_F(OptionsTest, WhereNoOthersConnectOneUserHasAll) {
  auto line = parse_command_line({"--max-connections", "80", "--max-jobs-per-user", "9"}, user());
  line->options.has_other_users = false;
  EXPECT_EQ(line->options.connections_per_user(), 80u);
  EXPECT_EQ(line->options.jobs_per_user(), 9u);
}

TEST_F(OptionsTest, WrongLinesAreNamedWithTheirPlace) {
  for (const char* line :
       {"nonsense = 1", "ram", "ram = much", "ram = 1K", "threads = -1", "threads = 4x",
        "log-level = loud", "socket =", "max-jobs = 0", "= 1", "foreground = 1", "config = /x"}) {
    Options options;
    const Status status = apply_config(std::string("kv = 1M\n") + line + "\n", "f.conf", options);
    ASSERT_FALSE(status.has_value()) << line;
    EXPECT_EQ(status.error().code, ErrorCode::kConfig);
    EXPECT_TRUE(status.error().message.starts_with("f.conf:2: ")) << status.error().message;
    EXPECT_FALSE(status.error().remedy.empty()) << line;
  }
  Options options;
  EXPECT_FALSE(apply_config("kv = 1M\nkv = 2M\n", "f.conf", options).has_value());
}

TEST_F(OptionsTest, TheUsersConfigFileIsRead) {
  std::filesystem::create_directories(dir_ / ".config/airllm");
  std::ofstream(dir_ / ".config/airllm/airllmd.conf") << "model = mine\n";
  EXPECT_EQ(parse_command_line({}, user())->options.model, "mine");
}

TEST_F(OptionsTest, WrongFlagsAreUsageErrors) {
  for (const std::vector<std::string>& args : {std::vector<std::string>{"--nonsense"},
                                               {"word"},
                                               {"--ram"},
                                               {"--ram", "x"},
                                               {"--threads", "99999"},
                                               {"--socket", ""}}) {
    const auto line = parse_command_line(args, user());
    ASSERT_FALSE(line.has_value()) << args[0];
    EXPECT_EQ(line.error().code, ErrorCode::kUsage);
    EXPECT_FALSE(line.error().remedy.empty()) << args[0];
  }
}

TEST_F(OptionsTest, TheLastOfEqualFlagsCounts) {
  const auto line = parse_command_line({"--ram", "1M", "--threads=1", "--ram", "2M"}, user());
  ASSERT_TRUE(line.has_value()) << line.error().message;
  EXPECT_EQ(line->options.ram_bytes, 2u << 20);
}

TEST_F(OptionsTest, ChangesAreNamedByWhetherTheyNeedARestart) {
  const auto read = [&](const std::string& text) {
    return parse_command_line({"--config", config(text), "--max-jobs", "5"}, user())->options;
  };
  const Options before = read("ram = 1M\nmodel = a\nmax-jobs = 7\nread-timeout = 9\n");
  EXPECT_EQ(before.read_timeout_seconds, 9U);
  const SettingsChange none = changed_settings(before, before);
  EXPECT_TRUE(none.live.empty() && none.need_restart.empty());
  // The flag goes before the file; what is left out goes back to its default.
  const Options after = read("ram = 2M\nmodel = b\nmax-jobs = 8\nstop-timeout = 3\nkv = 1M\n");
  const SettingsChange change = changed_settings(before, after);
  EXPECT_EQ(change.live, (std::vector<std::string>{"model", "stop-timeout", "read-timeout"}));
  EXPECT_EQ(change.need_restart, (std::vector<std::string>{"ram", "kv"}));
  EXPECT_EQ(after.max_jobs, 5U);
  EXPECT_EQ(after.read_timeout_seconds, 120U);
}

TEST_F(OptionsTest, AHangOnPurposeIsReadFromTheEnvironment) {
  Environment environment = user();
  EXPECT_FALSE(parse_command_line({}, environment)->options.debug_hang);
  environment.debug_hang = "read:12";
  const auto hang = parse_command_line({}, environment)->options.debug_hang;
  ASSERT_TRUE(hang);
  EXPECT_EQ(hang->where, engine::DebugHang::Where::kRead);
  EXPECT_EQ(hang->after, 12U);
  for (const char* wrong : {"read", "read:", "read:x", "disk:1", ":1"}) {
    environment.debug_hang = wrong;
    const auto line = parse_command_line({}, environment);
    ASSERT_FALSE(line) << wrong;
    EXPECT_EQ(line.error().code, ErrorCode::kConfig);
  }
}

}  // namespace
}  // namespace airllm::daemon

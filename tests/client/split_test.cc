#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <map>
#include <string>

#include "client/source_dir.h"
#include "tests/client/fake_daemon.h"
#include "tests/client/run_program.h"

namespace airllm::client {
namespace {

namespace fs = std::filesystem;

std::string content_of(int fd) {
  std::array<char, 256> buffer{};
  const ssize_t got = pread(fd, buffer.data(), buffer.size(), 0);
  return std::string(buffer.data(), got > 0 ? static_cast<size_t>(got) : 0);
}

std::string status_of(const SourceDir& source, const std::string& name) {
  const SourceDir::Opened opened = source.open_file(name);
  EXPECT_EQ(opened.fd.valid(), opened.status == "ok") << name;
  return opened.status;
}

TEST(SourceDir, PassesRegularFilesOnly) {
  const TemporaryFolder folder;
  folder.write("model/config.json", "{}");
  folder.write("secret", "s");
  fs::create_directory(folder / "model/sub");
  ASSERT_EQ(mkfifo((folder / "model/pipe").c_str(), 0600), 0);
  fs::create_symlink("../secret", folder / "model/outside");
  fs::create_symlink(folder / "secret", folder / "model/absolute");
  fs::create_symlink("config.json", folder / "model/inside");
  fs::create_symlink("/dev/zero", folder / "model/device");
  const Result<SourceDir> source = SourceDir::open(folder / "model");
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(status_of(*source, "config.json"), "ok");
  EXPECT_EQ(status_of(*source, "nothing.json"), "missing");
  for (const char* name : {"pipe", "sub", "outside", "absolute", "inside", "device"}) {
    const std::string status = status_of(*source, name);
    EXPECT_TRUE(status != "ok" && status != "missing") << name << ": " << status;
  }
}

TEST(SourceDir, TakesPlainNamesOnly) {
  const TemporaryFolder folder;
  folder.write("model/config.json", "{}");
  const Result<SourceDir> source = SourceDir::open(folder / "model");
  ASSERT_TRUE(source.has_value());
  const std::vector<std::string> names{"",
                                       ".",
                                       "..",
                                       "../model/config.json",
                                       "/etc/passwd",
                                       "./config.json",
                                       "a/b",
                                       "config.json/",
                                       std::string("config.json\0x", 13),
                                       "a\nb",
                                       "additional_chat_templates/",
                                       "additional_chat_templates/../config.json",
                                       "additional_chat_templates/a/b",
                                       "other/config.json",
                                       "a\x1b",
                                       "\xff",
                                       std::string(300, 'a')};
  for (const std::string& name : names) {
    EXPECT_EQ(status_of(*source, name), "not a plain file name") << name;
  }
}

TEST(SourceDir, OpensForReadingOnly) {
  const TemporaryFolder folder;
  folder.write("model/config.json", "{}");
  const Result<SourceDir> source = SourceDir::open(folder / "model");
  ASSERT_TRUE(source.has_value());
  const SourceDir::Opened opened = source->open_file("config.json");
  ASSERT_TRUE(opened.fd.valid());
  const int flags = fcntl(opened.fd.get(), F_GETFL);
  EXPECT_EQ(flags & O_ACCMODE, O_RDONLY);
  EXPECT_NE(flags & O_NONBLOCK, 0);
}

TEST(SourceDir, FollowsLinksOfHubSnapshotsIntoBlobsOnly) {
  const TemporaryFolder folder;
  const std::string repository = "models--org--tiny";
  folder.write(repository + "/blobs/aaa", "weights");
  folder.write(repository + "/refs/main", "rev");
  folder.write("other/blobs/bbb", "not ours");
  fs::create_directories(folder / (repository + "/snapshots/rev"));
  const auto link = [&](const std::string& target, const std::string& name) {
    fs::create_symlink(target, folder / (repository + "/snapshots/rev/" + name));
  };
  link("../../blobs/aaa", "good");
  link(folder / (repository + "/blobs/aaa"), "good_absolute");
  link("../../blobs/none", "dangling");
  link("../../blobs/../refs/main", "dots");
  link("../../refs/main", "refs");
  link("../../../other/blobs/bbb", "elsewhere");
  link("/etc/passwd", "passwd");
  fs::create_symlink("/etc/passwd", folder / (repository + "/blobs/ccc"));
  link("../../blobs/ccc", "twice");
  const Result<SourceDir> source = SourceDir::open(folder / (repository + "/snapshots/rev"));
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(content_of(source->open_file("good").fd.get()), "weights");
  EXPECT_EQ(status_of(*source, "good_absolute"), "ok");
  for (const char* name : {"dangling", "dots", "refs", "elsewhere", "passwd", "twice"}) {
    const std::string status = status_of(*source, name);
    EXPECT_TRUE(status != "ok" && status != "missing") << name << ": " << status;
  }
  EXPECT_EQ(source->default_name(), "org/tiny");
}

TEST(SourceDir, TemplatesOfASnapshotMayBeLinksIntoTheRepository) {
  const TemporaryFolder folder;
  const std::string repository = "models--org--tiny/";
  folder.write(repository + "blobs/aaa", "the template");
  folder.write(repository + "snapshots/rev/config.json", "{}");
  const std::string templates = folder / (repository + "snapshots/rev/additional_chat_templates");
  fs::create_directory(templates);
  fs::create_symlink("../../../blobs/aaa", templates + "/rag.jinja");
  fs::create_symlink("../../blobs/aaa", templates + "/short.jinja");
  fs::create_symlink("/etc/passwd", templates + "/passwd.jinja");
  const Result<SourceDir> source = SourceDir::open(folder / (repository + "snapshots/rev"));
  ASSERT_TRUE(source.has_value());
  const SourceDir::Opened opened = source->open_file("additional_chat_templates/rag.jinja");
  EXPECT_EQ(content_of(opened.fd.get()), "the template");
  for (const char* name : {"short", "passwd"}) {
    const std::string file = std::string("additional_chat_templates/") + name + ".jinja";
    const std::string status = status_of(*source, file);
    EXPECT_TRUE(status != "ok" && status != "missing") << name << ": " << status;
  }
  const auto names = source->chat_templates();
  ASSERT_TRUE(names.has_value());
  EXPECT_EQ(*names, (std::vector<std::string>{"passwd.jinja", "rag.jinja", "short.jinja"}));
}

TEST(SourceDir, TemplatesAreRefusedWhenTheyAreMany) {
  const TemporaryFolder folder;
  folder.write("tiny/config.json", "{}");
  const Result<SourceDir> source = SourceDir::open(folder / "tiny");
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(source->chat_templates().value(), std::vector<std::string>());
  for (uint64_t i = 0; i <= protocol::kMaxChatTemplates; ++i) {
    folder.write("tiny/additional_chat_templates/t" + std::to_string(i) + ".jinja", "x");
  }
  const auto many = source->chat_templates();
  ASSERT_FALSE(many.has_value());
  EXPECT_NE(many.error().message.find("more than 32"), std::string::npos);
  fs::remove_all(folder / "tiny/additional_chat_templates");
  folder.write("tiny/additional_chat_templates/a\nb.jinja", "x");
  EXPECT_FALSE(source->chat_templates().has_value());
}

TEST(SourceDir, NameIsTheFoldersOwn) {
  const TemporaryFolder folder;
  folder.write("tiny-llama/config.json", "{}");
  fs::create_symlink("tiny-llama", folder / "link");
  EXPECT_EQ(SourceDir::open(folder / "tiny-llama/")->default_name(), "tiny-llama");
  EXPECT_EQ(SourceDir::open(folder / "link")->default_name(), "tiny-llama");
  EXPECT_EQ(SourceDir::open(folder / "tiny-llama/../tiny-llama/.")->default_name(), "tiny-llama");
}

TEST(Split, PassesWhatTheDaemonAsksFor) {
  const TemporaryFolder folder;
  folder.write("tiny/config.json", "the config");
  folder.write("tiny/model.safetensors", "the weights");
  folder.write("tiny/additional_chat_templates/tool_use.jinja", "tools");
  folder.write("tiny/additional_chat_templates/notes.txt", "no template");
  protocol::SplitParams params;
  protocol::Files files;
  std::vector<std::string> contents;
  Finished finished;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      params = std::get<protocol::SplitParams>(request.params);
      peer.event(request.id, protocol::OpenFiles{{"config.json", "none", "model.safetensors",
                                                  "additional_chat_templates/tool_use.jinja",
                                                  "additional_chat_templates/none.jinja"}});
      files = peer.read_as<protocol::Files>().value_or(protocol::Files{});
      for (const UniqueFd& fd : peer.take_descriptors()) contents.push_back(content_of(fd.get()));
      peer.event(
          request.id,
          protocol::Done{
              R"({"name":"tiny","bytes":2048,"shards":3,"unchanged":false,"shared":false})"});
      peer.read();
    });
    finished = daemon.run({"split", folder / "tiny"});
  }
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_EQ(finished.out,
            "tiny: 3 shards, 2 KiB\n"
            "Only you see it; for all users: airllm share tiny\n");
  EXPECT_FALSE(params.share);
  EXPECT_EQ(params.name, "tiny");
  EXPECT_EQ(params.source_label, folder / "tiny");
  EXPECT_EQ(files.status, (std::vector<std::string>{"ok", "missing", "ok", "ok", "missing"}));
  EXPECT_EQ(contents, (std::vector<std::string>{"the config", "the weights", "tools"}));
  EXPECT_EQ(params.chat_templates, (std::vector<std::string>{"tool_use.jinja"}));
}

TEST(Split, HostileDaemonGetsNothing) {
  const TemporaryFolder folder;
  folder.write("tiny/config.json", "the config");
  const std::vector<std::string> names{"../../../../../../../../etc/passwd",
                                       "/etc/passwd",
                                       std::string("config.json\0", 12),
                                       "a\nb",
                                       "..",
                                       ""};
  protocol::Files files;
  size_t descriptors = 0;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      peer.event(request.id, protocol::OpenFiles{names});
      files = peer.read_as<protocol::Files>().value_or(protocol::Files{});
      descriptors = peer.take_descriptors().size();
      peer.event(request.id, protocol::Failed{{ErrorCode::kNoInput, "refused", ""}});
      peer.read();
    });
    EXPECT_EQ(daemon.run({"split", folder / "tiny"}).status, 66);
  }
  EXPECT_EQ(descriptors, 0U);
  ASSERT_EQ(files.status.size(), names.size());
  for (const std::string& status : files.status) EXPECT_EQ(status, "not a plain file name");
}

TEST(Split, MoreThan64NamesEndTheConnection) {
  const TemporaryFolder folder;
  folder.write("tiny/config.json", "the config");
  size_t descriptors = 0;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      // encode() itself refuses so many, hence by hand.
      std::string body =
          "\x85\xa4type\xa5"
          "event\xa2id\x01\xa5"
          "event\xaaopen_files\xa4"
          "body";
      body[0] = '\x84';
      body += std::string("\x81\xa5names\xdc\x00\x41", 10);
      for (int i = 0; i < 65; ++i)
        body +=
            "\xab"
            "config.json";
      std::string frame(4, '\0');
      frame[0] = static_cast<char>(body.size() & 0xFF);
      frame[1] = static_cast<char>(body.size() >> 8);
      peer.send_raw(frame + body);
      while (peer.read()) {
      }
      descriptors = peer.take_descriptors().size();
      (void)request;
    });
    EXPECT_EQ(daemon.run({"split", folder / "tiny"}).status, 76);
  }
  EXPECT_EQ(descriptors, 0U);
}

TEST(Split, SameFileManyTimesLeaksNoDescriptors) {
  const TemporaryFolder folder;
  folder.write("tiny/config.json", "the config");
  constexpr int kRounds = 160;  // of 64: ten thousand, and more than a process may have open
  int rounds = 0;
  {
    const FakeDaemon daemon([&](Peer& peer) {
      const protocol::Request request = peer.read_request();
      const protocol::OpenFiles wanted{std::vector<std::string>(64, "config.json")};
      for (; rounds < kRounds; ++rounds) {
        peer.event(request.id, wanted);
        const auto files = peer.read_as<protocol::Files>();
        if (!files || files->status != std::vector<std::string>(64, "ok")) return;
        if (peer.take_descriptors().size() != 64) return;
      }
      peer.event(request.id, protocol::Done{"{}"});
      peer.read();
    });
    EXPECT_EQ(daemon.run({"split", folder / "tiny"}).status, 0);
  }
  EXPECT_EQ(rounds, kRounds);
}

TEST(Split, CancelSaysHowToGoOn) {
  const TemporaryFolder folder;
  folder.write("tiny/config.json", "the config");
  const FakeDaemon daemon([](Peer& peer) {
    const protocol::Request request = peer.read_request();
    peer.event(request.id, protocol::OpenFiles{{"config.json"}});
    if (!peer.read_as<protocol::Files>()) return;
    if (!peer.read_as<protocol::Cancel>()) return;
    peer.event(request.id, protocol::Failed{{ErrorCode::kCancelled, "cancelled", ""}});
    peer.read();
  });
  Running running({"split", folder / "tiny"}, daemon.with_socket({}));
  usleep(200000);
  running.send_signal(2);
  const Finished finished = running.finish();
  EXPECT_EQ(finished.status, 130);
  EXPECT_NE(finished.err.find("goes on where it stopped"), std::string::npos) << finished.err;
}

}  // namespace
}  // namespace airllm::client

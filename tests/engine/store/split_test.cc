#include "engine/store/split.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "base/json.h"
#include "engine/store/manifest.h"
#include "engine/store/store.h"
#include "tests/engine/store/memory_disk.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

class SplitTest : public testing::Test {
 protected:
  SplitTest() {
    write_tiny_checkpoint(source_.path(), {.tokenizer = true});
    store_ = std::move(*Store::open("/store", disk_));
  }
  Result<Json> split(const std::string& name = "m", const ProgressFn& progress = {}) {
    return store_->split(split_request(source_.path(), name), progress, {});
  }
  void expect_error(const Result<Json>& result, ErrorCode code,
                    std::initializer_list<std::string> parts) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, code) << result.error().message;
    for (const std::string& part : parts) {
      EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
    }
    EXPECT_FALSE(result.error().remedy.empty()) << result.error().message;
  }

  TemporaryFolder source_;
  MemoryDisk disk_;
  std::unique_ptr<Store> store_;
};

TEST_F(SplitTest, CopiesSmallFilesAsTheyCame) {
  write_file(source_ / "README.md", "not copied");
  write_file(source_ / "chat_template.jinja", "{{ messages }}");
  write_file(source_ / "special_tokens_map.json", "{}");
  ASSERT_TRUE(split().has_value());
  const auto files = disk_.files_below("/store/models/m");
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "chat_template.jinja"}) {
    EXPECT_EQ(files.at(name), read_file(source_ / name)) << name;
  }
  EXPECT_FALSE(files.contains("README.md"));
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->tokenizer_json, read_file(source_ / "tokenizer.json"));
  EXPECT_EQ(model->chat_template_jinja, "{{ messages }}");
  EXPECT_EQ(model->special_tokens_map_json, "{}");
}

TEST_F(SplitTest, TokenizerModelCountsWhereThereIsNoTokenizerJson) {
  write_file(source_ / "tokenizer.model", "bytes");
  write_file(source_ / "added_tokens.json", "{}");
  ASSERT_TRUE(split("both").has_value());
  Result<StoredModel> model = store_->open_model("both");
  ASSERT_TRUE(model.has_value());
  EXPECT_TRUE(model->tokenizer_json.has_value());
  EXPECT_FALSE(model->tokenizer_model.has_value());
  std::filesystem::remove(source_ / "tokenizer.json");
  ASSERT_TRUE(split("m").has_value());
  model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->tokenizer_model, "bytes");
  EXPECT_EQ(model->added_tokens_json, "{}");
  EXPECT_EQ(store_->show("m")->at("has_tokenizer"), true);
}

TEST_F(SplitTest, KeepsATiktokenFile) {
  std::filesystem::remove(source_ / "tokenizer.json");
  write_file(source_ / "qwen.tiktoken", "IQ== 0\n");
  ASSERT_TRUE(split().has_value());
  EXPECT_EQ(disk_.files_below("/store/models/m").at("qwen.tiktoken"), "IQ== 0\n");
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->tiktoken, "IQ== 0\n");
}

TEST_F(SplitTest, KeepsAdditionalChatTemplates) {
  std::filesystem::create_directory(source_ / "additional_chat_templates");
  write_file(source_ / "additional_chat_templates/rag.jinja", "{{ documents }}");
  write_file(source_ / "additional_chat_templates/tool_use.jinja", "{{ tools }}");
  engine::SplitRequest request = split_request(source_.path(), "m");
  const auto folder = std::make_shared<FolderSource>(source_.path());
  folder->claim_chat_templates({"rag.jinja", "tool_use.jinja"});
  request.source = folder;
  ASSERT_TRUE(store_->split(request, {}, {}).has_value());
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->additional_chat_templates,
            (std::vector<std::pair<std::string, std::string>>{{"rag", "{{ documents }}"},
                                                              {"tool_use", "{{ tools }}"}}));
  EXPECT_TRUE(store_->split(request, {}, {}).has_value());  // again: it is the same
  folder->claim_chat_templates({"rag.jinja"});
  EXPECT_FALSE(store_->split(request, {}, {}).has_value());
}

TEST_F(SplitTest, WorksWithoutATokenizer) {
  std::filesystem::remove(source_ / "tokenizer.json");
  std::filesystem::remove(source_ / "tokenizer_config.json");
  ASSERT_TRUE(split().has_value());
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  EXPECT_FALSE(model->tokenizer_json.has_value());
}

TEST_F(SplitTest, ReportsProgressUpToTheEnd) {
  std::vector<engine::Progress> seen;
  ASSERT_TRUE(split("m", [&](const engine::Progress& p) { seen.push_back(p); }).has_value());
  ASSERT_GT(seen.size(), 5U);
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].stage, "split");
    EXPECT_EQ(seen[i].unit, "bytes");
    EXPECT_GE(seen[i].done, i == 0 ? 0 : seen[i - 1].done);
  }
  EXPECT_EQ(seen.back().done, seen.back().total);
  EXPECT_EQ(seen.back().total, 29408U * 4);
}

TEST_F(SplitTest, SameSourceAgainSucceedsAtOnce) {
  ASSERT_TRUE(split().has_value());
  const uint64_t operations = disk_.operations();
  const Result<Json> again = split();
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ((*again)["unchanged"], true);
  EXPECT_EQ(disk_.operations(), operations);
}

TEST_F(SplitTest, CopyOfTheSourceIsComparedAndFoundTheSame) {
  ASSERT_TRUE(split().has_value());
  const TemporaryFolder copy;
  std::filesystem::copy(source_.path(), copy.path(), std::filesystem::copy_options::recursive);
  std::vector<std::string> stages;
  const auto progress = [&](const engine::Progress& p) { stages.push_back(p.stage); };
  const Result<Json> same = store_->split(split_request(copy.path(), "m"), progress, {});
  ASSERT_TRUE(same.has_value()) << same.error().message;
  EXPECT_EQ((*same)["unchanged"], true);
  ASSERT_FALSE(stages.empty());
  EXPECT_EQ(stages.front(), "check");
  // From now on the copy is known.
  stages.clear();
  EXPECT_TRUE(store_->split(split_request(copy.path(), "m"), progress, {}).has_value());
  EXPECT_TRUE(stages.empty());
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
}

TEST_F(SplitTest, AnotherSourceUnderATakenNameIsRefused) {
  ASSERT_TRUE(split().has_value());
  const auto before = disk_.files_below("/store/models");
  // Another shape; another file count; equal headers with other weights; another tokenizer.
  const TinyOptions others[] = {{.layers = 2, .tokenizer = true},
                                {.files = 2, .tokenizer = true},
                                {.seed = 2, .tokenizer = true},
                                {.tokenizer = false}};
  for (const TinyOptions& options : others) {
    const TemporaryFolder other;
    write_tiny_checkpoint(other.path(), options);
    const Result<Json> refused = store_->split(split_request(other.path(), "m"), {}, {});
    expect_error(refused, ErrorCode::kCannotCreate, {"the model m exists already"});
    EXPECT_EQ(exit_status(refused.error().code), 73);
    EXPECT_NE(refused.error().remedy.find("--name"), std::string::npos);
    EXPECT_NE(refused.error().remedy.find("airllm rm m"), std::string::npos);
  }
  write_tiny_checkpoint(source_.path(), {.layers = 2, .tokenizer = true});
  expect_error(split(), ErrorCode::kCannotCreate, {source_.path(), "have changed since"});
  EXPECT_EQ(disk_.files_below("/store/models"), before);
  EXPECT_TRUE(disk_.list("/store/incoming")->empty());
}

TEST_F(SplitTest, NamesCannotNest) {
  ASSERT_TRUE(split("org/m").has_value());
  expect_error(split("org"), ErrorCode::kCannotCreate, {"org", "org/m"});
  expect_error(split("org/m/x"), ErrorCode::kCannotCreate, {"org/m/x", "org/m"});
  EXPECT_TRUE(split("org/n").has_value());
}

TEST_F(SplitTest, InvalidNameIsAUsageError) {
  for (const char* name :
       {"", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a/.b", "a b", "a\n"}) {
    expect_error(split(name), ErrorCode::kUsage, {});
  }
}

TEST_F(SplitTest, TooLittleRoomIsRefusedWithBothNumbers) {
  disk_.set_capacity(uint64_t{1} << 30, 100'000);
  const Result<Json> refused = split();
  expect_error(refused, ErrorCode::kIo, {"(100000 bytes)", "97.7 KiB"});
  const uint64_t written = disk_.bytes_written();
  EXPECT_LT(written, 10'000U);
  EXPECT_TRUE(store_->list({})->empty());
  EXPECT_TRUE(disk_.list("/store/incoming")->empty());
  disk_.set_capacity(uint64_t{1} << 30);
  EXPECT_TRUE(split().has_value());
}

TEST_F(SplitTest, FullDiskKeepsWhatIsFinished) {
  // Two shards and a half fit; the free space that was told was wrong.
  disk_.set_capacity(100'000, uint64_t{1} << 30);
  const Result<Json> refused = split();
  expect_error(refused, ErrorCode::kIo, {"No space left"});
  EXPECT_NE(refused.error().remedy.find("goes on"), std::string::npos);
  const Result<std::vector<ModelSummary>> models = store_->list({});
  ASSERT_EQ(models->size(), 1U);
  EXPECT_FALSE(models->front().complete);
  EXPECT_GT(models->front().bytes, 0U);

  disk_.set_capacity(uint64_t{1} << 30);
  const uint64_t before = disk_.bytes_written();
  const Result<Json> made = split();
  ASSERT_TRUE(made.has_value()) << made.error().message;
  const auto bytes = (*made)["bytes"].get<uint64_t>();
  EXPECT_LT(disk_.bytes_written() - before, bytes - 40'000);
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
}

TEST_F(SplitTest, CancelledBetweenBlocksAndResumed) {
  std::stop_source stop;
  const auto progress = [&](const engine::Progress& p) {
    if (p.done > p.total / 2) stop.request_stop();
  };
  const Result<Json> cancelled =
      store_->split(split_request(source_.path(), "m"), progress, stop.get_token());
  expect_error(cancelled, ErrorCode::kCancelled, {"m"});
  EXPECT_FALSE(store_->open_model("m").has_value());
  uint64_t first = 0;
  const Result<Json> made = split("m", [&](const engine::Progress& p) {
    if (first == 0) first = p.done;
  });
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_GT(first, 0U) << "it began anew";
}

TEST_F(SplitTest, ChangedSourceBeginsAnew) {
  std::stop_source stop;
  const auto progress = [&](const engine::Progress& p) {
    if (p.done > p.total / 2) stop.request_stop();
  };
  (void)store_->split(split_request(source_.path(), "m"), progress, stop.get_token());
  write_tiny_checkpoint(source_.path(), {.seed = 9, .tokenizer = true});
  ASSERT_TRUE(split().has_value());
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  const TemporaryFolder other;
  MemoryDisk fresh;
  const auto store = std::move(*Store::open("/store", fresh));
  ASSERT_TRUE(store->split(split_request(source_.path(), "m"), {}, {}).has_value());
  for (const auto& [path, text] : fresh.files_below("/store/models/m/shards")) {
    EXPECT_TRUE(disk_.files_below("/store/models/m/shards").at(path) == text) << path;
  }
}

TEST_F(SplitTest, DamagedFinishedShardIsWrittenAnew) {
  std::stop_source stop;
  const auto progress = [&](const engine::Progress& p) {
    if (p.done > p.total / 2) stop.request_stop();
  };
  (void)store_->split(split_request(source_.path(), "m"), progress, stop.get_token());
  disk_.flip_bit("/store/incoming/m/shards/000-embedding.safetensors", 100, 1);
  ASSERT_TRUE(split().has_value());
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
}

TEST_F(SplitTest, SourceReadErrorNamesTheFile) {
  uint64_t failures = 0;
  for (bool done = false; !done; ++failures) {
    disk_.fail_source_read_after(failures);
    const Result<Json> failed = split();
    done = failed.has_value();
    if (done) break;
    EXPECT_EQ(failed.error().code, ErrorCode::kIo);
    EXPECT_NE(failed.error().message.find(source_.path()), std::string::npos);
  }
  EXPECT_GT(failures, 8U);
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
}

TEST_F(SplitTest, SourceThatChangesUnderneathIsRefused) {
  const std::string weights = source_ / "model.safetensors";
  const uint64_t size = std::filesystem::file_size(weights);
  const auto truncate = [&](const engine::Progress&) {
    std::filesystem::resize_file(weights, size / 2);
  };
  const Result<Json> truncated = split("m", truncate);
  ASSERT_FALSE(truncated.has_value());
  EXPECT_EQ(truncated.error().code, ErrorCode::kData);
  EXPECT_NE(truncated.error().message.find(weights), std::string::npos);

  write_tiny_checkpoint(source_.path(), {.tokenizer = true});
  const auto touch = [&](const engine::Progress&) {
    std::filesystem::last_write_time(weights, std::filesystem::file_time_type::clock::now());
  };
  const Result<Json> touched = split("m", touch);
  expect_error(touched, ErrorCode::kData, {weights, "changed"});
  EXPECT_FALSE(store_->open_model("m").has_value());
}

TEST_F(SplitTest, TwoSplitsToOneNameAtOnce) {
  std::atomic<bool> tried{false};
  const auto progress = [&](const engine::Progress&) {
    if (tried.exchange(true)) return;
    expect_error(split(), ErrorCode::kTemporary, {"m"});
    const Status removed = store_->remove("m");
    ASSERT_FALSE(removed.has_value());
    EXPECT_EQ(removed.error().code, ErrorCode::kTemporary);
    EXPECT_TRUE(split("other").has_value());
  };
  EXPECT_TRUE(split("m", progress).has_value());
  EXPECT_TRUE(tried);
}

TEST_F(SplitTest, BundledIsTakenFromTheConfig) {
  Json config = tiny_config({});
  config["airllm_bundled"] = true;
  write_file(source_ / "config.json", dump_json(config));
  ASSERT_TRUE(split().has_value());
  EXPECT_TRUE(store_->list({})->front().bundled);
}

}  // namespace
}  // namespace airllm::store

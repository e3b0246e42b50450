#include "engine/store/store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/json.h"
#include "engine/store/names.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

std::unique_ptr<Store> open_store(const std::string& path) {
  Result<std::unique_ptr<Store>> store = Store::open(path, system_disk());
  EXPECT_TRUE(store.has_value()) << store.error().message;
  return store ? std::move(*store) : nullptr;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    write_tiny_checkpoint(folder_.path());
    store_ = open_store(folder_ / "store");
  }
  void make(const std::string& name) {
    const Result<Json> made = store_->split(split_request(folder_.path(), name), {}, {});
    ASSERT_TRUE(made.has_value()) << made.error().message;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, OpensWhatWasSplit) {
  make("org/tiny");
  const Result<StoredModel> model = store_->open_model("org/tiny");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->ref.name, "org/tiny");
  EXPECT_EQ(model->architecture.layers, 3U);
  EXPECT_EQ(model->config_json, read_file(folder_ / "config.json"));
  ASSERT_EQ(model->shards.size(), 5U);
  EXPECT_NE(model->shards[0].find("model.embed_tokens.weight"), nullptr);
  EXPECT_EQ(model->shards[1].tensors.front().name, "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(model->shards[4].tensors.back().name, "lm_head.weight");
}

TEST_F(StoreTest, VerifyReadsEverything) {
  make("m");
  std::vector<engine::Progress> seen;
  const Result<Json> verified =
      store_->verify("m", [&](const engine::Progress& p) { seen.push_back(p); }, {});
  ASSERT_TRUE(verified.has_value()) << verified.error().message;
  EXPECT_EQ((*verified)["ok"], true);
  EXPECT_EQ((*verified)["shards"], 5);
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().stage, "verify");
  EXPECT_EQ(seen.back().done, (*verified)["bytes"]);
  EXPECT_EQ(seen.back().done, seen.back().total);
  std::stop_source stop;
  stop.request_stop();
  const Result<Json> cancelled = store_->verify("m", {}, stop.get_token());
  ASSERT_FALSE(cancelled.has_value());
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
}

TEST_F(StoreTest, DamagedSmallFileIsFound) {
  make("m");
  const std::string path = folder_ / "store/models/m/generation_config.json";
  write_file(path, R"({"bos_token_id": 1, "eos_token_id": 3})");
  for (const Error& error : {store_->open_model("m").error(), store_->verify("m", {}, {}).error(),
                             store_->show("m").error()}) {
    EXPECT_EQ(error.code, ErrorCode::kData);
    EXPECT_TRUE(contains(error.message, path)) << error.message;
  }
}

TEST_F(StoreTest, ListShowsCompleteUnfinishedAndBroken) {
  EXPECT_TRUE(store_->list({})->empty());
  make("whole");
  make("broken");
  write_file(folder_ / "store/models/broken/manifest.json", "{");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(
      store_->split(split_request(folder_.path(), "half"), {}, stop.get_token()).has_value());
  const Result<std::vector<ModelSummary>> models = store_->list({});
  ASSERT_TRUE(models.has_value());
  ASSERT_EQ(models->size(), 3U);
  const ModelSummary& broken = (*models)[0];
  EXPECT_EQ(broken.model.name, "broken");
  EXPECT_TRUE(contains(broken.problem, "manifest.json")) << broken.problem;
  EXPECT_EQ((*models)[1].model.name, "half");
  EXPECT_FALSE((*models)[1].complete);
  const ModelSummary& whole = (*models)[2];
  EXPECT_EQ(whole.model.name, "whole");
  EXPECT_TRUE(whole.complete);
  EXPECT_EQ(whole.problem, "");
  EXPECT_EQ(whole.family, "llama");
  EXPECT_EQ(whole.dtype, "f32");
  EXPECT_EQ(whole.layers, 3U);
  EXPECT_EQ(whole.parameters, 29408U);
  EXPECT_EQ(whole.source, folder_.path());
  EXPECT_EQ(whole.created.size(), std::string("2026-01-01T00:00:00Z").size());
}

TEST_F(StoreTest, AStoreThatWentAwayIsAnErrorWhateverIsAsked) {
  make("m");
  std::filesystem::remove_all(folder_ / "store");
  for (const Error& error : {store_->list({}).error(), store_->show("m").error(),
                             store_->open_model("x").error(), store_->remove("m").error(),
                             store_->split(split_request(folder_.path(), "n"), {}, {}).error()}) {
    EXPECT_EQ(error.code, ErrorCode::kNoInput);
    EXPECT_TRUE(contains(error.message, folder_ / "store")) << error.message;
    EXPECT_TRUE(contains(error.remedy, "restart the daemon")) << error.remedy;
  }
}

TEST_F(StoreTest, WhatIsBrokenHasARemedy) {
  make("broken");
  make("lacking");
  write_file(folder_ / "store/models/broken/manifest.json", "{");
  ASSERT_TRUE(
      std::filesystem::remove(folder_ / "store/models/lacking/shards/000-embedding.safetensors"));
  for (const char* name : {"broken", "lacking"}) {
    const Result<StoredModel> model = store_->open_model(name);
    ASSERT_FALSE(model.has_value()) << name;
    EXPECT_FALSE(model.error().remedy.empty()) << model.error().message;
  }
}

TEST_F(StoreTest, OtherManifestVersionIsRefusedByName) {
  make("m");
  const std::string path = folder_ / "store/models/m/manifest.json";
  Json manifest = *parse_json(read_file(path), path);
  manifest["version"] = 2;
  manifest["something_new"] = true;
  write_file(path, dump_json(manifest));
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::kData);
  EXPECT_TRUE(contains(model.error().message, "version 2")) << model.error().message;
  EXPECT_TRUE(contains(model.error().message, "version 1")) << model.error().message;
  EXPECT_TRUE(contains(store_->list({})->front().problem, "version 2"));
}

TEST_F(StoreTest, UnknownModelSuggestsNearNames) {
  EXPECT_TRUE(contains(store_->open_model("x").error().remedy, "airllm split"));
  make("org/Llama-3-8B");
  make("stories");
  for (const char* name : {"llama-3-8b", "org/llama-3-8B", "Llama-3-8", "LLAMA-3-7B"}) {
    const Error error = store_->open_model(name).error();
    EXPECT_EQ(error.code, ErrorCode::kNoInput);
    EXPECT_TRUE(contains(error.message, name)) << error.message;
    EXPECT_TRUE(contains(error.remedy, "'org/Llama-3-8B'")) << name << ": " << error.remedy;
    EXPECT_FALSE(contains(error.remedy, "stories")) << error.remedy;
  }
  EXPECT_TRUE(contains(store_->show("storys").error().remedy, "'stories'"));
  EXPECT_TRUE(contains(store_->verify("zzzzzz", {}, {}).error().remedy, "airllm list"));
  EXPECT_EQ(store_->open_model("org").error().code, ErrorCode::kNoInput);
  EXPECT_EQ(store_->open_model("../stories").error().code, ErrorCode::kNoInput);
  EXPECT_EQ(store_->open_model(std::string(100'000, 'a')).error().code, ErrorCode::kNoInput);
}

TEST_F(StoreTest, UnfinishedModelIsNotOpened) {
  std::stop_source stop;
  stop.request_stop();
  (void)store_->split(split_request(folder_.path(), "half"), {}, stop.get_token());
  const Error error = store_->show("half").error();
  EXPECT_EQ(error.code, ErrorCode::kNoInput);
  EXPECT_TRUE(contains(error.message, "not complete")) << error.message;
  EXPECT_TRUE(contains(error.remedy, folder_.path())) << error.remedy;
  // It outlives the store, and can be removed.
  store_.reset();
  store_ = open_store(folder_ / "store");
  ASSERT_EQ(store_->list({})->size(), 1U);
  EXPECT_TRUE(store_->remove("half").has_value());
  EXPECT_TRUE(store_->list({})->empty());
}

TEST_F(StoreTest, RemoveTakesAwayTheModelAndItsEmptyParents) {
  make("org/a");
  make("org/b");
  EXPECT_EQ(store_->remove("org").error().code, ErrorCode::kNoInput);
  ASSERT_TRUE(store_->remove("org/a").has_value());
  EXPECT_EQ(store_->open_model("org/a").error().code, ErrorCode::kNoInput);
  EXPECT_TRUE(store_->open_model("org/b").has_value());
  ASSERT_TRUE(store_->remove("org/b").has_value());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "store/models/org"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "store/incoming"));
  EXPECT_EQ(store_->remove("org/b").error().code, ErrorCode::kNoInput);
  EXPECT_EQ(store_->remove("../x").error().code, ErrorCode::kUsage);
}

TEST_F(StoreTest, ModelStaysReadableWhileItIsRemoved) {
  make("m");
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value());
  ASSERT_TRUE(store_->remove("m").has_value());
  const Shard& shard = model->shards[0];
  void* page = std::aligned_alloc(4096, 4096);
  EXPECT_TRUE(
      shard.files.front()->read_at(4096, {static_cast<std::byte*>(page), 4096}).has_value());
  std::free(page);
}

TEST_F(StoreTest, SecondHolderIsRefusedAndNamesTheFirst) {
  const Result<std::unique_ptr<Store>> second = Store::open(folder_ / "store", system_disk());
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kTemporary);
  EXPECT_TRUE(contains(second.error().message, std::to_string(::getpid())))
      << second.error().message;
  store_.reset();
  EXPECT_TRUE(Store::open(folder_ / "store", system_disk()).has_value());
}

TEST_F(StoreTest, FoldersAreForTheOwnerAlone) {
  struct stat info {};
  ASSERT_EQ(::stat((folder_ / "store/models").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
}

TEST_F(StoreTest, ShowDescribesTheModel) {
  make("m");
  const Result<Json> shown = store_->show("m");
  ASSERT_TRUE(shown.has_value()) << shown.error().message;
  EXPECT_EQ((*shown)["name"], "m");
  EXPECT_EQ((*shown)["complete"], true);
  EXPECT_EQ((*shown)["architecture"]["kv_heads"], 2);
  EXPECT_EQ((*shown)["active_parameters"], (*shown)["parameters"]);
  EXPECT_EQ((*shown)["kv_bytes_per_token"], 3 * 2 * 2 * 8 * 4);  // layers, heads, k and v, width
  ASSERT_EQ((*shown)["formats"].size(), 1U);
  EXPECT_EQ((*shown)["formats"][0]["name"], "f32");
  EXPECT_EQ((*shown)["formats"][0]["parameters"], (*shown)["parameters"]);
  EXPECT_EQ((*shown)["shards"].size(), 5U);
  EXPECT_EQ((*shown)["has_tokenizer"], false);
}

TEST(Store, ImpossibleFoldersAreNamed) {
  const TemporaryFolder folder;
  write_file(folder / "file", "");
  const Error error = Store::open(folder / "file/store", system_disk()).error();
  EXPECT_TRUE(contains(error.message, folder / "file")) << error.message;
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  ASSERT_EQ(::chmod(folder.path().c_str(), 0500), 0);
  const Error denied = Store::open(folder / "store", system_disk()).error();
  EXPECT_EQ(denied.code, ErrorCode::kNoPermission);
  EXPECT_TRUE(contains(denied.message, folder / "store")) << denied.message;
  ASSERT_EQ(::chmod(folder.path().c_str(), 0700), 0);
}

TEST(Store, OpenDropsWhatCannotBeResumed) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "incoming/.trash-1-0/shards");
  std::filesystem::create_directories(folder / "incoming/no-journal/shards");
  std::filesystem::create_directories(folder / "incoming/broken");
  write_file(folder / "incoming/broken/state.json", "{}");
  write_file(folder / "incoming/stray-file", "x");
  ASSERT_NE(open_store(folder.path()), nullptr);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "incoming"));
}

TEST(Store, SplitsTheSharedModel) {
  const std::string source = std::string(AIRLLM_SOURCE_DIR) + "/../shared/models/stories260k";
  if (!std::filesystem::exists(source)) GTEST_SKIP() << source << " is not there";
  const TemporaryFolder folder;
  const auto store = open_store(folder / "store");
  const Result<Json> made = store->split(split_request(source, "stories"), {}, {});
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_TRUE(store->open_model("stories").has_value());
  EXPECT_TRUE(store->verify("stories", {}, {}).has_value());
}

TEST(ModelName, Validity) {
  const std::string longest(128, 'a');
  for (const std::string& name : {std::string("a"), std::string("org/Name-1.5_b"), longest,
                                  std::string("a/b/c"), std::string("-x"), std::string("a..b")}) {
    EXPECT_TRUE(is_valid_model_name(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("/"), std::string("a/"), std::string("/a"), std::string("a//b"),
        std::string("."), std::string(".."), std::string("a/.."), std::string("../a"),
        std::string(".a"), std::string("a/.b"), std::string("a b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string("\xc3\xa4"), std::string("a+b"), longest + "a"}) {
    EXPECT_FALSE(is_valid_model_name(name)) << name;
  }
}

}  // namespace
}  // namespace airllm::store

// Whose models there are in the store, who sees them, sharing them, and what they may take.
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/json.h"
#include "engine/store/store.h"
#include "tests/engine/store/memory_disk.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

using engine::ModelRef;
using engine::Viewer;

// Of users that no machine has, since messages give names.
constexpr uid_t kAnn = 3000001001;
constexpr uid_t kBen = 3000001002;
constexpr Viewer kAdmin{0, true};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Owners : public testing::Test {
 protected:
  Owners() {
    write_tiny_checkpoint(source_.path());
    open();
  }

  void open(std::optional<uint64_t> quota_bytes = std::nullopt) {
    store_.reset();
    Result<std::unique_ptr<Store>> store = Store::open("/store", disk_, quota_bytes);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    store_ = std::move(*store);
  }

  engine::SplitRequest request(const std::string& name, std::optional<uid_t> owner) {
    engine::SplitRequest out = split_request(source_.path(), name);
    out.owner = owner;
    return out;
  }
  Result<Json> split(const std::string& name, std::optional<uid_t> owner) {
    return store_->split(request(name, owner), {}, {});
  }
  void make(const std::string& name, std::optional<uid_t> owner) {
    const Result<Json> made = split(name, owner);
    ASSERT_TRUE(made.has_value()) << made.error().message;
  }
  void leave_unfinished(const std::string& name, std::optional<uid_t> owner) {
    std::stop_source stop;
    stop.request_stop();
    ASSERT_FALSE(store_->split(request(name, owner), {}, stop.get_token()).has_value());
  }

  std::optional<ModelRef> found(const std::string& name, const Viewer& viewer) {
    const Result<engine::FoundModel> model = store_->find(name, viewer, false);
    return model ? std::optional(model->model) : std::nullopt;
  }
  std::vector<ModelRef> listed(const Viewer& viewer) {
    std::vector<ModelRef> out;
    const Result<std::vector<ModelSummary>> rows = store_->list(viewer);
    EXPECT_TRUE(rows.has_value());
    for (const ModelSummary& row : *rows) out.push_back(row.model);
    return out;
  }

  TemporaryFolder source_;
  MemoryDisk disk_;
  std::unique_ptr<Store> store_;
};

// ---- who sees what -----------------------------------------------------------------------------

TEST_F(Owners, TheDaemonsOwnModelsAreSharedAndHaveNoRecord) {
  const Result<Json> made = split("m", std::nullopt);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_EQ((*made)["shared"], true);
  EXPECT_TRUE(disk_.exists("/store/models/m/manifest.json"));
  EXPECT_FALSE(disk_.exists("/store/models/m/owner"));
  EXPECT_EQ(store_->find("m", {kAnn}, false)->owner, ::geteuid());
}

TEST_F(Owners, AnothersModelIsPrivateUntilItIsShared) {
  const Result<Json> made = split("m", kAnn);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_EQ((*made)["shared"], false);
  EXPECT_TRUE(disk_.exists("/store/users/3000001001/models/m/manifest.json"));
  EXPECT_FALSE(disk_.exists("/store/models/m"));
  EXPECT_TRUE(found("m", {kAnn}));
  EXPECT_FALSE(found("m", {kBen}));
  EXPECT_FALSE(found("m", {}));
  EXPECT_TRUE(listed({kBen}).empty());
  EXPECT_EQ(listed({kAnn}), (std::vector<ModelRef>{{"m", kAnn}}));
  EXPECT_EQ(listed(kAdmin), (std::vector<ModelRef>{{"m", kAnn}}));
  ASSERT_TRUE(store_->share({"m", kAnn}).has_value());
  EXPECT_EQ(found("m", {kBen}), ModelRef("m"));
  EXPECT_EQ(store_->find("m", {kBen}, false)->owner, kAnn);
  EXPECT_EQ((*store_->list({kBen}))[0].owner, kAnn);
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
  EXPECT_TRUE(disk_.list("/store/users/3000001001/models")->empty());
  // Sharing what is shared changes nothing.
  EXPECT_TRUE(store_->share("m").has_value());
  open();
  EXPECT_EQ(store_->find("m", {kBen}, false)->owner, kAnn);
}

TEST_F(Owners, NamesMeanOnesOwnFirst) {
  make("m", std::nullopt);
  make("m", kAnn);
  make("m", kBen);
  EXPECT_EQ(found("m", {kAnn}), ModelRef("m", kAnn));
  EXPECT_EQ(found("m", {kBen}), ModelRef("m", kBen));
  EXPECT_EQ(found("m", {uid_t{3000001003}}), ModelRef("m"));
  EXPECT_EQ(found("m", {}), ModelRef("m"));
  EXPECT_EQ(found("m", kAdmin), ModelRef("m"));
  EXPECT_EQ(listed(kAdmin).size(), 3U);
  EXPECT_EQ(listed({kAnn}), (std::vector<ModelRef>{{"m", kAnn}, "m"}));
  EXPECT_EQ(store_->open_model({"m", kBen})->ref, ModelRef("m", kBen));
  // Removing one leaves the others.
  ASSERT_TRUE(store_->remove({"m", kAnn}).has_value());
  EXPECT_EQ(found("m", {kAnn}), ModelRef("m"));
  EXPECT_EQ(found("m", {kBen}), ModelRef("m", kBen));
}

TEST_F(Owners, WhoSeesAllMayNameAnothersModelIfOnlyOneUserHasIt) {
  make("m", kAnn);
  EXPECT_EQ(found("m", kAdmin), ModelRef("m", kAnn));
  make("m", kBen);
  const Error error = store_->find("m", kAdmin, false).error();
  EXPECT_EQ(error.code, ErrorCode::kUsage);
  EXPECT_TRUE(contains(error.message, "3000001001")) << error.message;
  EXPECT_TRUE(contains(error.message, "3000001002")) << error.message;
}

TEST_F(Owners, WhatIsNotSeenIsAsIfItWereNotThere) {
  make("secret-model", kAnn);
  leave_unfinished("half-done", kAnn);
  for (const char* name : {"secret-model", "secret-mode", "half-done"}) {
    for (const bool unfinished : {false, true}) {
      const Error hidden = store_->find(name, {kBen}, unfinished).error();
      EXPECT_EQ(hidden.code, ErrorCode::kNoInput);
      EXPECT_EQ(hidden.message, "there is no model " + std::string(name));
      EXPECT_EQ(hidden.remedy, "there is no model yet; 'airllm split DIR' makes one");
    }
  }
  EXPECT_TRUE(contains(store_->find("secret-mode", {kAnn}, false).error().remedy, "secret-model"));
  EXPECT_TRUE(contains(store_->find("half-done", {kAnn}, false).error().message, "not complete"));
  EXPECT_EQ(store_->find("half-done", {kAnn}, true)->model, ModelRef("half-done", kAnn));
  // Of an own split and a shared model, the model is what can be asked.
  make("half-done", std::nullopt);
  EXPECT_EQ(found("half-done", {kAnn}), ModelRef("half-done"));
}

TEST_F(Owners, UnfinishedSplitsOutliveTheDaemonAndGoOn) {
  leave_unfinished("m", kAnn);
  open();
  ASSERT_EQ(store_->list({kAnn})->size(), 1U);
  EXPECT_FALSE((*store_->list({kAnn}))[0].complete);
  EXPECT_TRUE(store_->list({kBen})->empty());
  make("m", kAnn);
  EXPECT_TRUE(found("m", {kAnn}));
  leave_unfinished("n", kAnn);
  EXPECT_TRUE(store_->remove({"n", kAnn}).has_value());
  EXPECT_EQ(listed({kAnn}).size(), 1U);
}

TEST_F(Owners, StrangeFoldersAndRecordsAreNobodys) {
  make("m", kAnn);
  ASSERT_TRUE(store_->share({"m", kAnn}).has_value());
  ASSERT_TRUE(write_text_atomically(disk_, "/store/models/m/owner", "nobody\n").has_value());
  ASSERT_TRUE(disk_.make_directories("/store/users/ann/models/x").has_value());
  ASSERT_TRUE(
      write_text_atomically(disk_, "/store/users/ann/models/x/manifest.json", "{}").has_value());
  open();
  EXPECT_EQ(store_->find("m", {}, false)->owner, ::geteuid());
  EXPECT_EQ(listed(kAdmin).size(), 1U);
}

// ---- sharing -----------------------------------------------------------------------------------

TEST_F(Owners, ANameThatIsTakenCannotBeShared) {
  make("m", std::nullopt);
  make("m", kAnn);
  const Error taken = store_->share({"m", kAnn}).error();
  EXPECT_EQ(taken.code, ErrorCode::kCannotCreate);
  EXPECT_EQ(found("m", {kAnn}), ModelRef("m", kAnn));
  make("org/a", kAnn);
  make("org", std::nullopt);
  EXPECT_EQ(store_->share({"org/a", kAnn}).error().code, ErrorCode::kCannotCreate);
  EXPECT_EQ(store_->share({"none", kAnn}).error().code, ErrorCode::kNoInput);
}

TEST_F(Owners, ASplitThatIsToBeSharedIsRefusedBeforeItsWork) {
  make("m", std::nullopt);
  engine::SplitRequest wanted = request("m", kAnn);
  wanted.share = true;
  const uint64_t before = disk_.bytes_written();
  EXPECT_EQ(store_->split(wanted, {}, {}).error().code, ErrorCode::kCannotCreate);
  EXPECT_EQ(disk_.bytes_written(), before);
}

TEST_F(Owners, TheSameSplitAfterSharingFindsTheSharedModel) {
  make("m", kAnn);
  ASSERT_TRUE(store_->share({"m", kAnn}).has_value());
  const Result<Json> again = split("m", kAnn);
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ((*again)["unchanged"], true);
  EXPECT_EQ((*again)["shared"], true);
  // Another user's split of the name is that user's.
  EXPECT_EQ((*split("m", kBen))["unchanged"], false);
  EXPECT_EQ(found("m", {kBen}), ModelRef("m", kBen));
}

// ---- quota -------------------------------------------------------------------------------------

TEST_F(Owners, TheQuotaCountsPrivateSharedAndUnfinishedModels) {
  make("m", kAnn);
  const uint64_t one = *tree_bytes(disk_, "/store/users/3000001001/models/m");
  open(2 * one + one / 2);
  engine::SplitRequest wanted = request("n", kAnn);
  wanted.has_quota = true;
  ASSERT_TRUE(store_->share({"m", kAnn}).has_value());
  ASSERT_TRUE(store_->split(wanted, {}, {}).has_value());
  wanted.name = "o";
  const uint64_t before = disk_.bytes_written();
  const Error error = store_->split(wanted, {}, {}).error();
  EXPECT_EQ(error.code, ErrorCode::kCannotCreate);
  EXPECT_TRUE(contains(error.message, "store-quota")) << error.message;
  EXPECT_TRUE(contains(error.remedy, "airllm rm")) << error.remedy;
  EXPECT_EQ(disk_.bytes_written(), before);
  EXPECT_FALSE(disk_.exists("/store/users/3000001001/incoming/o"));
  // Others have their own, and who has none none.
  engine::SplitRequest bens = request("o", kBen);
  bens.has_quota = true;
  EXPECT_TRUE(store_->split(bens, {}, {}).has_value());
  EXPECT_TRUE(split("o", kAnn).has_value());
  // What is removed counts no more.
  ASSERT_TRUE(store_->remove({"o", kAnn}).has_value());
  ASSERT_TRUE(store_->remove("m").has_value());
  wanted.name = "p";
  EXPECT_TRUE(store_->split(wanted, {}, {}).has_value());
}

TEST_F(Owners, WithoutASettingTheQuotaIsHalfOfTheFileSystem) {
  make("m", kAnn);
  const uint64_t one = *tree_bytes(disk_, "/store/users/3000001001/models/m");
  engine::SplitRequest wanted = request("n", kAnn);
  wanted.has_quota = true;
  disk_.set_capacity(3 * one);
  EXPECT_EQ(store_->split(wanted, {}, {}).error().code, ErrorCode::kCannotCreate);
  disk_.set_capacity(5 * one, uint64_t{1} << 40);
  EXPECT_TRUE(store_->split(wanted, {}, {}).has_value());
}

TEST_F(Owners, SplitsSideBySideCountTogether) {
  make("m", kAnn);
  const uint64_t one = *tree_bytes(disk_, "/store/users/3000001001/models/m");
  open(2 * one + one / 2);
  engine::SplitRequest first = request("n", kAnn);
  first.has_quota = true;
  engine::SplitRequest second = request("o", kAnn);
  second.has_quota = true;
  std::optional<ErrorCode> refused;
  // The first has been promised its room when it reports that it has written nothing yet.
  const auto progress = [&](const engine::Progress& step) {
    if (refused || step.done != 0) return;
    const Result<Json> made = store_->split(second, {}, {});
    refused = made ? ErrorCode::kInternal : made.error().code;
  };
  ASSERT_TRUE(store_->split(first, progress, {}).has_value());
  EXPECT_EQ(refused, ErrorCode::kCannotCreate);
}

}  // namespace
}  // namespace airllm::store

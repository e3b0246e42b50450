// Models whose weights are read where they lie.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "base/json.h"
#include "engine/store/hash.h"
#include "engine/store/originals.h"
#include "engine/store/shard_index.h"
#include "engine/store/shard_layout.h"
#include "engine/store/store.h"
#include "tests/engine/store/memory_disk.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

class InPlaceTest : public testing::Test {
 protected:
  InPlaceTest() {
    write_tiny_checkpoint(source_.path(), {.files = 2});
    store_ = std::move(*Store::open("/store", disk_));
  }

  Result<Json> split(const std::string& name = "m", bool in_place = true) {
    engine::SplitRequest request = split_request(source_.path(), name);
    if (in_place) request.in_place = source_.path();
    return store_->split(request, {}, {});
  }
  std::string weights() const { return source_ / "model-00001-of-00002.safetensors"; }

  TemporaryFolder source_;
  MemoryDisk disk_;
  std::unique_ptr<Store> store_;
};

TEST_F(InPlaceTest, WeightsAreThoseOfACopy) {
  const Result<Json> made = split();
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_EQ(made->at("in_place"), true);
  EXPECT_EQ(made->at("opens_originals"), true);
  ASSERT_TRUE(split("copy", false).has_value());
  const Result<StoredModel> model = store_->open_model("m");
  const Result<StoredModel> copy = store_->open_model("copy");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  ASSERT_TRUE(copy.has_value());
  for (size_t s = 0; s < model->shards.size(); ++s) {
    const Shard& shard = model->shards[s];
    for (size_t t = 0; t < shard.tensors.size(); ++t) {
      const ShardTensor& tensor = shard.tensors[t];
      const ShardTensor& copied = copy->shards[s].tensors[t];
      EXPECT_EQ(tensor.name, copied.name);
      EXPECT_EQ(tensor.block_checksums, copied.block_checksums) << tensor.name;
      EXPECT_EQ(*read_bytes(shard.file_of(tensor), tensor.offset_bytes, tensor.bytes()),
                *read_bytes(copy->shards[s].file_of(copied), copied.offset_bytes, copied.bytes()));
    }
  }
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
}

TEST_F(InPlaceTest, APlanWritesNothing) {
  const auto before = disk_.files_below("/store");
  engine::SplitRequest request = split_request(source_.path(), "m");
  request.only_plan = true;
  const Result<Json> plan = store_->split(request, {}, {});
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_EQ(disk_.files_below("/store"), before);
  const Result<Json> made = split("m", false);
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(plan->at("needs_bytes"), made->at("bytes"));
}

TEST_F(InPlaceTest, ThePlanOfAnIndexIsWhatItTakes) {
  engine::SplitRequest request = split_request(source_.path(), "m");
  request.in_place = source_.path();
  request.only_plan = true;
  const Result<Json> plan = store_->split(request, {}, {});
  const Result<Json> made = split();
  ASSERT_TRUE(plan.has_value() && made.has_value());
  EXPECT_EQ(plan->at("needs_bytes"), made->at("bytes"));
  EXPECT_EQ(plan->at("source_bytes"), made->at("elsewhere_bytes"));
}

TEST_F(InPlaceTest, ACopyAndAnIndexAreNotTakenForEachOther) {
  ASSERT_TRUE(split().has_value());
  EXPECT_EQ(split("m", false).error().code, ErrorCode::kCannotCreate);
  ASSERT_TRUE(split("copy", false).has_value());
  EXPECT_EQ(split("copy", true).error().code, ErrorCode::kCannotCreate);
}

TEST_F(InPlaceTest, AFolderWhosePathIsNotPlainIsRefused) {
  for (const char* path : {"relative", "/a/../b", "/a\nb", "/a\xff"}) {
    engine::SplitRequest request = split_request(source_.path(), "m");
    request.in_place = path;
    const Result<Json> made = store_->split(request, {}, {});
    ASSERT_FALSE(made.has_value()) << path;
    EXPECT_EQ(made.error().code, ErrorCode::kUsage) << path;
  }
}

TEST_F(InPlaceTest, AReplacedFileIsNamed) {
  ASSERT_TRUE(split().has_value());
  const std::string text = read_file(weights());
  std::filesystem::remove(weights());
  write_file(source_ / "other", "takes the inode");
  write_file(weights(), text);
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::kData);
  EXPECT_NE(model.error().message.find(weights()), std::string::npos) << model.error().message;
  // Its index can be shown nevertheless.
  EXPECT_TRUE(store_->show("m").has_value());
  // And the same content is taken for the same model.
  const Result<Json> again = split();
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->at("unchanged"), true);
  EXPECT_TRUE(store_->open_model("m").has_value());
}

TEST_F(InPlaceTest, OtherContentIsNotTakenForTheSameModel) {
  ASSERT_TRUE(split().has_value());
  std::string text = read_file(weights());
  text.back() ^= 1;
  write_file(weights(), text);
  EXPECT_EQ(split().error().code, ErrorCode::kCannotCreate);
}

// Passes a folder's files as the owner would.
class Owner : public engine::OwnerFiles {
 public:
  explicit Owner(std::string folder) : source_(std::move(folder)) {}
  Result<std::vector<UniqueFd>> open_in(const std::string& directory,
                                        std::span<const std::string> names) override {
    asked_for = directory;
    return source_.open(names);
  }
  std::string asked_for;

 private:
  FolderSource source_;
};

TEST_F(InPlaceTest, TheOwnerPassesWhatCannotBeOpened) {
  ASSERT_TRUE(split().has_value());
  const std::string away = source_.path() + "-away";
  std::filesystem::rename(source_.path(), away);
  const Result<StoredModel> refused = store_->open_model("m");
  ASSERT_FALSE(refused.has_value());
  EXPECT_TRUE(may_be_passed(refused.error()));
  EXPECT_NE(refused.error().remedy.find("owner"), std::string::npos) << refused.error().remedy;
  EXPECT_TRUE(store_->open_model("m", {.weights = false, .owner_files = nullptr}).has_value());
  Owner owner(away);
  const Result<StoredModel> model =
      store_->open_model("m", {.weights = true, .owner_files = &owner});
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(owner.asked_for, source_.path());
  EXPECT_TRUE(model->files_were_passed);
  EXPECT_TRUE(store_->check_originals(*model).has_value());
  std::filesystem::rename(away, source_.path());
  write_file(weights(), read_file(weights()) + "x");
  EXPECT_FALSE(store_->check_originals(*model).has_value());
}

TEST_F(InPlaceTest, FilesThatAreNotTheModelsAreNotTakenFromTheOwner) {
  ASSERT_TRUE(split().has_value());
  const TemporaryFolder other;
  write_tiny_checkpoint(other.path(), {.files = 2});
  std::filesystem::rename(source_.path(), source_.path() + "-away");
  Owner owner(other.path());
  const Result<StoredModel> model =
      store_->open_model("m", {.weights = true, .owner_files = &owner});
  std::filesystem::rename(source_.path() + "-away", source_.path());
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::kData);
}

// ---- the index's file --------------------------------------------------------------------------

model::StageSpec stage() {
  model::StageSpec out;
  out.shard_name = "001-layer-000";
  out.tensors.resize(1);
  out.tensors[0].name = "a.weight";
  out.tensors[0].shape = {65, 1024};
  return out;
}

TEST(ShardIndex, IsReadStrictly) {
  const std::vector<SourceRecord> sources = {{"config.json", 1 << 20, 1, "i"},
                                             {"a.safetensors", 140'000, 2, "i"}};
  ShardTensor tensor = shard_tensor(stage().tensors[0], kernels::NumberFormat::kBF16);
  tensor.offset_bytes = 140'000 - tensor.bytes();
  const std::string text = index_text("001-layer-000", {tensor}, {"a.safetensors"});
  ASSERT_TRUE(parse_index(text, "i", stage(), sources).has_value());

  struct Case {
    const char* name;
    std::function<void(Json& root, Json& tensor)> damage;
  };
  const Case cases[] = {
      {"format", [](Json& root, Json&) { root["format"] = "airllm-shard"; }},
      {"version", [](Json& root, Json&) { root["version"] = 2; }},
      {"stage", [](Json& root, Json&) { root["stage"] = "002-layer-001"; }},
      {"more", [](Json& root, Json&) { root["more"] = 1; }},
      {"no tensor", [](Json& root, Json&) { root["tensors"] = Json::array(); }},
      {"name", [](Json&, Json& t) { t["name"] = "b.weight"; }},
      {"dtype", [](Json&, Json& t) { t["dtype"] = "U8"; }},
      {"longer dtype", [](Json&, Json& t) { t["dtype"] = "F32"; }},
      {"shape",
       [](Json&, Json& t) {
         t["shape"] = {1024, 65};
       }},
      {"leads out", [](Json&, Json& t) { t["file"] = "../a.safetensors"; }},
      {"another file", [](Json&, Json& t) { t["file"] = "b.safetensors"; }},
      {"the settings", [](Json&, Json& t) { t["file"] = "config.json"; }},
      {"offset", [](Json&, Json& t) { t["offset"] = 140'000; }},
      {"offset that wraps", [](Json&, Json& t) { t["offset"] = ~uint64_t{0}; }},
      {"negative offset", [](Json&, Json& t) { t["offset"] = -1; }},
      {"fewer checksums", [](Json&, Json& t) { t["xxh3"].erase(0); }},
      {"more checksums", [](Json&, Json& t) { t["xxh3"].push_back("0000000000000000"); }},
      {"checksum", [](Json&, Json& t) { t["xxh3"][0] = "12"; }},
  };
  for (const Case& c : cases) {
    Json root = *parse_json(text, "i");
    c.damage(root, root["tensors"].empty() ? root : root["tensors"][0]);
    const auto read = parse_index(dump_json(root), "i", stage(), sources);
    ASSERT_FALSE(read.has_value()) << c.name;
    EXPECT_EQ(read.error().code, ErrorCode::kData) << c.name;
  }
}

}  // namespace
}  // namespace airllm::store

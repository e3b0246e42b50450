#include "engine/store/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <functional>

#include "base/json.h"
#include "base/units.h"
#include "engine/model/description.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  Result<Checkpoint> open() {
    FolderSource source(folder_.path());
    return open_checkpoint(system_disk(), source, "DIR");
  }
  void expect_refused(ErrorCode code, std::initializer_list<const char*> parts) {
    const Result<Checkpoint> checkpoint = open();
    ASSERT_FALSE(checkpoint.has_value());
    EXPECT_EQ(checkpoint.error().code, code) << checkpoint.error().message;
    for (const char* part : parts) {
      EXPECT_NE(checkpoint.error().message.find(part), std::string::npos)
          << checkpoint.error().message << "\nlacks: " << part;
    }
  }
  void edit(const std::string& name, const std::function<void(Json&)>& change) {
    Result<Json> root = parse_json(read_file(folder_ / name), name);
    ASSERT_TRUE(root.has_value());
    change(*root);
    write_file(folder_ / name, dump_json(*root));
  }
  // Writes one weight file with exactly these tensors, all zero.
  void write_weights(const std::string& name, const std::vector<TensorRecord>& records) {
    const uint64_t bytes = records.empty() ? 0 : records.back().end;
    write_file(folder_ / name, write_safetensors_header({}, records, 8) + std::string(bytes, '\0'));
  }
  std::vector<TensorRecord> records() {
    const auto file = system_disk().open(folder_ / "model.safetensors", OpenMode::kRead);
    return read_safetensors_header(**file)->tensors;
  }

  TemporaryFolder folder_;
};

// Lays the records anew after one of them changed its size.
void lay_out(std::vector<TensorRecord>& records) {
  uint64_t at = 0;
  for (TensorRecord& record : records) {
    uint64_t bytes = dtype_bytes(record.dtype);
    for (const uint64_t size : record.shape) bytes *= size;
    record.begin = at;
    record.end = at += bytes;
  }
}

TEST_F(CheckpointTest, SingleAndShardedHoldTheSame) {
  write_tiny_checkpoint(folder_.path(), {.dtype = Dtype::kF16});
  const Result<Checkpoint> single = open();
  ASSERT_TRUE(single.has_value()) << single.error().message;
  EXPECT_EQ(single->weight_files.size(), 1U);
  EXPECT_EQ(single->dtype(), "f16");
  EXPECT_EQ(model::count_parameters(single->architecture, single->stages).total, 29408U);
  std::filesystem::remove(folder_ / "model.safetensors");
  write_tiny_checkpoint(folder_.path(), {.dtype = Dtype::kF16, .files = 3});
  const Result<Checkpoint> sharded = open();
  ASSERT_TRUE(sharded.has_value()) << sharded.error().message;
  EXPECT_EQ(sharded->weight_files.size(), 3U);
  EXPECT_EQ(sharded->tensors.size(), single->tensors.size());
}

TEST_F(CheckpointTest, MissingPartsAreNamed) {
  expect_refused(ErrorCode::kNoInput, {"DIR/config.json"});
  write_tiny_checkpoint(folder_.path());
  std::filesystem::remove(folder_ / "model.safetensors");
  expect_refused(ErrorCode::kNoInput, {"model.safetensors", "model.safetensors.index.json"});
  write_tiny_checkpoint(folder_.path(), {.files = 2});
  std::filesystem::remove(folder_ / "model-00002-of-00002.safetensors");
  expect_refused(ErrorCode::kNoInput, {"DIR/model-00002-of-00002.safetensors", "index"});
}

TEST_F(CheckpointTest, UnknownFamilyIsNamed) {
  write_tiny_checkpoint(folder_.path());
  edit("config.json", [](Json& root) { root["model_type"] = "mamba"; });
  expect_refused(ErrorCode::kData, {"DIR/config.json", "model_type", "mamba"});
}

TEST_F(CheckpointTest, HostileIndexIsRefusedBeforeAnythingIsOpened) {
  write_tiny_checkpoint(folder_.path(), {.files = 2});
  const std::string good = read_file(folder_ / "model.safetensors.index.json");
  const Json names[] = {"../secret.safetensors",
                        "/etc/passwd",
                        "a/b.safetensors",
                        "..",
                        ".",
                        ".hidden",
                        "",
                        "a\nb",
                        std::string("a\0b", 3),
                        std::string(300, 'a'),
                        "a\\b",
                        7,
                        nullptr,
                        Json::array()};
  for (const Json& name : names) {
    write_file(folder_ / "model.safetensors.index.json", good);
    edit("model.safetensors.index.json",
         [&](Json& root) { root["weight_map"]["model.norm.weight"] = name; });
    expect_refused(ErrorCode::kData, {"index.json", "model.norm.weight", "plain name"});
  }
}

TEST_F(CheckpointTest, BrokenIndexIsRefused) {
  write_tiny_checkpoint(folder_.path(), {.files = 2});
  for (const char* text : {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
                           R"({"weight_map":{"a":"x","a":"y"}})"}) {
    write_file(folder_ / "model.safetensors.index.json", text);
    expect_refused(ErrorCode::kData, {"DIR/model.safetensors.index.json"});
  }
}

TEST_F(CheckpointTest, IndexAndFilesMustAgree) {
  write_tiny_checkpoint(folder_.path(), {.files = 2});
  const std::string good = read_file(folder_ / "model.safetensors.index.json");
  edit("model.safetensors.index.json",
       [](Json& root) { root["weight_map"]["lm_head.bias"] = "model-00001-of-00002.safetensors"; });
  expect_refused(ErrorCode::kData, {"lm_head.bias", "is not in"});
  write_file(folder_ / "model.safetensors.index.json", good);
  edit("model.safetensors.index.json",
       [](Json& root) { root["weight_map"].erase("model.norm.weight"); });
  expect_refused(ErrorCode::kData, {"model.norm.weight", "is not in"});
  write_file(folder_ / "model.safetensors.index.json", good);
  edit("model.safetensors.index.json", [](Json& root) {
    for (auto& [tensor, file] : root["weight_map"].items()) {
      file = "model-00001-of-00002.safetensors";
    }
  });
  expect_refused(ErrorCode::kData, {"is not in 'model-00001-of-00002.safetensors'"});
}

TEST_F(CheckpointTest, TensorInTwoFilesIsRefused) {
  write_tiny_checkpoint(folder_.path(), {.files = 2});
  std::filesystem::copy(folder_ / "model-00001-of-00002.safetensors",
                        folder_ / "model-00002-of-00002.safetensors",
                        std::filesystem::copy_options::overwrite_existing);
  expect_refused(ErrorCode::kData, {"model-00001-of-00002", "model-00002-of-00002"});
}

TEST_F(CheckpointTest, EveryTensorIsNeededInItsShape) {
  write_tiny_checkpoint(folder_.path(), {.layers = 1, .biases = true});
  const std::vector<TensorRecord> good = records();
  ASSERT_EQ(good.size(), 19U);
  for (size_t i = 0; i < good.size(); ++i) {
    std::vector<TensorRecord> bad = good;
    bad.erase(bad.begin() + static_cast<std::ptrdiff_t>(i));
    lay_out(bad);
    write_weights("model.safetensors", bad);
    expect_refused(ErrorCode::kData, {good[i].name.c_str(), "missing"});
    bad = good;
    bad[i].shape[0] += 1;
    lay_out(bad);
    write_weights("model.safetensors", bad);
    const std::string found = "[" + std::to_string(bad[i].shape[0]);
    const std::string wanted = "[" + std::to_string(good[i].shape[0]);
    expect_refused(ErrorCode::kData, {good[i].name.c_str(), found.c_str(), wanted.c_str()});
    bad = good;
    bad[i].dtype = Dtype::kI8;
    lay_out(bad);
    write_weights("model.safetensors", bad);
    expect_refused(ErrorCode::kData, {good[i].name.c_str(), "I8"});
  }
}

TEST_F(CheckpointTest, LeftoverTensorsAreRefusedUnlessTheyMeanNothing) {
  write_tiny_checkpoint(folder_.path(), {.layers = 1, .tied = true});
  std::vector<TensorRecord> tensors = records();
  tensors.push_back({"lm_head.weight", Dtype::kF32, {96, 32}, 0, 0});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::kF32, {4}, 0, 0});
  lay_out(tensors);
  write_weights("model.safetensors", tensors);
  const Result<Checkpoint> checkpoint = open();
  EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  tensors.push_back({"model.layers.1.mlp.up_proj.weight", Dtype::kF32, {48, 32}, 0, 0});
  lay_out(tensors);
  write_weights("model.safetensors", tensors);
  expect_refused(ErrorCode::kData, {"model.layers.1.mlp.up_proj.weight", "[48, 32]"});
}

TEST_F(CheckpointTest, OnlyRegularFilesAreTaken) {
  write_tiny_checkpoint(folder_.path());
  std::filesystem::remove(folder_ / "model.safetensors");
  ASSERT_EQ(::mkfifo((folder_ / "model.safetensors").c_str(), 0600), 0);
  expect_refused(ErrorCode::kNoInput, {"DIR/model.safetensors", "regular file"});
  std::filesystem::remove(folder_ / "model.safetensors");
  std::filesystem::create_directory(folder_ / "model.safetensors");
  expect_refused(ErrorCode::kNoInput, {"DIR/model.safetensors", "regular file"});
}

TEST_F(CheckpointTest, SmallFilesHaveACap) {
  write_tiny_checkpoint(folder_.path());
  std::filesystem::resize_file(folder_ / "generation_config.json", 2 * kMiB);
  expect_refused(ErrorCode::kData, {"generation_config.json", "2 MiB"});
  std::filesystem::remove(folder_ / "generation_config.json");
  std::filesystem::resize_file(folder_ / "config.json", 2 * kMiB);
  expect_refused(ErrorCode::kData, {"config.json"});
}

TEST_F(CheckpointTest, ChatTemplatesNamesAreChecked) {
  write_tiny_checkpoint(folder_.path());
  std::filesystem::create_directory(folder_ / "additional_chat_templates");
  write_file(folder_ / "additional_chat_templates/a.jinja", "x");
  const auto open = [&](std::vector<std::string> names) {
    FolderSource source(folder_.path());
    source.claim_chat_templates(std::move(names));
    return open_checkpoint(system_disk(), source, "DIR");
  };
  EXPECT_TRUE(open({"a.jinja"}).has_value());
  const std::vector<std::vector<std::string>> refused = {
      {"../a.jinja"},
      {"b/a.jinja"},
      {".jinja"},
      {"a"},
      {"a\n.jinja"},
      {"\xff.jinja"},
      {std::string(250, 'a') + ".jinja"},
      {"a.jinja", "a.jinja"},
      {"missing.jinja"},
      std::vector<std::string>(engine::kMaxChatTemplates + 1, "a.jinja")};
  for (const auto& names : refused) {
    const Result<Checkpoint> checkpoint = open(names);
    ASSERT_FALSE(checkpoint.has_value()) << names.front();
    EXPECT_EQ(checkpoint.error().code, ErrorCode::kData) << checkpoint.error().message;
  }
  std::filesystem::resize_file(folder_ / "additional_chat_templates/a.jinja", 5 * kMiB);
  EXPECT_FALSE(open({"a.jinja"}).has_value());
}

// A peer that answers with another number of descriptors than it was asked for.
class WrongCount : public engine::SourceDirectory {
 public:
  Result<std::vector<UniqueFd>> open(std::span<const std::string>) override {
    return std::vector<UniqueFd>(3);
  }
};

TEST(Checkpoint, WrongNumberOfDescriptorsIsAProtocolError) {
  WrongCount source;
  const Result<Checkpoint> checkpoint = open_checkpoint(system_disk(), source, "DIR");
  ASSERT_FALSE(checkpoint.has_value());
  EXPECT_EQ(checkpoint.error().code, ErrorCode::kProtocol);
}

}  // namespace
}  // namespace airllm::store

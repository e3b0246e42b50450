#include "engine/store/shard.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/units.h"
#include "engine/store/hash.h"
#include "engine/store/shard_layout.h"
#include "engine/store/store.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

TEST(RowsPerBlock, FollowsTheRuleOfTheFormat) {
  struct Case {
    uint64_t rows, row_bytes, expected;
  };
  const Case cases[] = {
      {1, 1, 1},           {1000, 4096, 32},  // whole pages: 32 rows are the target
      {1000, 8192, 16},                       // Llama-3-8B: hidden 4096 in bf16
      {1000, 2, 1000},                        // fewer rows than a block would hold
      {1 << 20, 2, 65536},                    // exactly the target
      {1000, 28672, 4},                       // mlp.down of Llama-3-8B in bf16
      {1000, 6144, 20},                       // two rows make three pages
      {1000, 4098, 31},                       // 2048 rows would make whole pages: too long
      {1000, 131072, 1},                      // a row is the target
      {1000, 262144, 1},                      // twice the target
      {1000, 1 << 20, 1},                     // longer than that: one row
      {3, 28672, 3},                          // never more than there are
      {1000, 43008, 2},                       // two rows make 21 pages
      {1000, 133120, 1},                      // two rows would make whole pages, but 266,240 bytes
  };
  for (const Case& c : cases) {
    EXPECT_EQ(rows_per_block(c.rows, c.row_bytes), c.expected) << c.rows << " × " << c.row_bytes;
  }
}

TEST(RowsPerBlock, StaysWithinTwiceTheTargetUnlessARowIsLonger) {
  for (uint64_t row_bytes = 2; row_bytes < 300'000; row_bytes += 2) {
    const uint64_t block = rows_per_block(1 << 20, row_bytes) * row_bytes;
    ASSERT_LE(block, std::max(2 * kBlockTargetBytes, row_bytes)) << row_bytes;
  }
}

class ShardFile : public testing::Test {
 protected:
  void make(const TinyOptions& options) {
    write_tiny_checkpoint(folder_.path(), options);
    store_ = std::move(*Store::open(folder_ / "store", system_disk()));
    const Result<Json> made = store_->split(split_request(folder_.path(), "m"), {}, {});
    ASSERT_TRUE(made.has_value()) << made.error().message;
  }
  std::string shard(const std::string& name) {
    return folder_ / ("store/models/m/shards/" + name + ".safetensors");
  }

  TemporaryFolder folder_;
  std::unique_ptr<Store> store_;
};

TEST_F(ShardFile, IsWhatTheFormatSays) {
  make({.layers = 2, .hidden = 40, .intermediate = 52, .biases = true});
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  for (const Shard& opened : model->shards) {
    const auto file = system_disk().open(opened.path, OpenMode::kRead);
    const auto header = read_safetensors_header(**file);
    ASSERT_TRUE(header.has_value()) << header.error().message;
    EXPECT_EQ(header->data_offset % kPageBytes, 0U);
    EXPECT_EQ(header->metadata.at("format"), "airllm-shard");
    EXPECT_EQ(header->metadata.at("version"), "1");
    EXPECT_EQ(header->metadata.at("layout"), "row-major");
    EXPECT_EQ(header->tensors.back().name, "checksums");
    const std::string bytes = read_file(opened.path);
    for (const TensorRecord& record : header->tensors) {
      const bool pad = record.name.starts_with("pad.");
      EXPECT_TRUE(pad || (header->data_offset + record.begin) % kPageBytes == 0) << record.name;
      if (!pad) continue;
      EXPECT_LT(record.end - record.begin, kPageBytes);
      EXPECT_EQ(bytes.substr(header->data_offset + record.begin, record.end - record.begin),
                std::string(record.end - record.begin, '\0'));
    }
  }
}

TEST_F(ShardFile, HoldsTheSourcesBytes) {
  make({.layers = 1, .dtype = Dtype::kBF16});
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const auto source = system_disk().open(folder_ / "model.safetensors", OpenMode::kRead);
  const auto header = read_safetensors_header(**source);
  const std::string original = read_file(folder_ / "model.safetensors");
  size_t found = 0;
  for (const Shard& opened : model->shards) {
    const std::string bytes = read_file(opened.path);
    for (const TensorRecord& record : header->tensors) {
      const ShardTensor* tensor = opened.find(record.name);
      if (tensor == nullptr) continue;
      ++found;
      EXPECT_EQ(bytes.substr(tensor->offset_bytes, tensor->bytes()),
                original.substr(header->data_offset + record.begin, record.end - record.begin));
    }
  }
  EXPECT_EQ(found, header->tensors.size());
}

TEST_F(ShardFile, CheckBlockFindsEveryFlippedBit) {
  make({.layers = 1, .vocabulary = 2000});
  const Result<StoredModel> model = store_->open_model("m");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const Shard& opened = model->shards[0];
  const ShardTensor& tensor = opened.tensors[0];
  ASSERT_EQ(tensor.block_checksums.size(), 2U);
  const std::string bytes = read_file(opened.path);
  const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
  std::string last = bytes.substr(tensor.offset_bytes + block_bytes, tensor.bytes() - block_bytes);
  EXPECT_TRUE(check_block(opened, tensor, 1, std::as_bytes(std::span(last))).has_value());
  for (size_t at = 0; at < last.size(); at += 997) {
    last[at] = static_cast<char>(last[at] ^ 0x10);
    const Status status = check_block(opened, tensor, 1, std::as_bytes(std::span(last)));
    last[at] = static_cast<char>(last[at] ^ 0x10);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, ErrorCode::kData);
    const std::string offset = std::to_string(tensor.offset_bytes + block_bytes);
    for (const std::string& part : {opened.path, tensor.name, "offset " + offset}) {
      EXPECT_NE(status.error().message.find(part), std::string::npos) << status.error().message;
    }
    EXPECT_FALSE(status.error().remedy.empty());
  }
}

TEST_F(ShardFile, TruncatedShardIsRefused) {
  make({.layers = 1});
  const std::string path = shard("001-layer-000");
  const uint64_t size = read_file(path).size();
  for (const uint64_t length : {uint64_t{0}, uint64_t{4}, uint64_t{4096}, size - 1}) {
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(length)), 0);
    const Result<StoredModel> model = store_->open_model("m");
    ASSERT_FALSE(model.has_value());
    EXPECT_EQ(model.error().code, ErrorCode::kData);
    EXPECT_NE(model.error().message.find(path), std::string::npos) << model.error().message;
    EXPECT_NE(model.error().message.find("truncated"), std::string::npos) << model.error().message;
  }
}

TEST_F(ShardFile, DamageOfHeaderOrChecksumsIsFoundWhenOpening) {
  make({.layers = 1});
  const std::string path = shard("002-head");
  const std::string good = read_file(path);
  const size_t header_end = good.find_last_not_of(' ', 4095);
  // In the length, the names, the spaces that fill the header, and the checksums.
  for (const size_t at : {size_t{0}, size_t{9}, size_t{60}, header_end + 50, good.size() - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    write_file(path, bad);
    const Result<StoredModel> model = store_->open_model("m");
    ASSERT_FALSE(model.has_value()) << at;
    EXPECT_EQ(model.error().code, ErrorCode::kData);
    EXPECT_NE(model.error().message.find(path), std::string::npos) << model.error().message;
  }
}

TEST_F(ShardFile, VerifyFindsAFlippedBitAnywhere) {
  make({.layers = 1, .hidden = 24});
  const std::string path = shard("001-layer-000");
  const std::string good = read_file(path);
  for (size_t at = 3; at < good.size(); at += 509) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    write_file(path, bad);
    const Result<Json> verified = store_->verify("m", {}, {});
    ASSERT_FALSE(verified.has_value()) << "byte " << at;
    EXPECT_EQ(verified.error().code, ErrorCode::kData);
    EXPECT_NE(verified.error().message.find(path), std::string::npos) << verified.error().message;
  }
  write_file(path, good);
  EXPECT_TRUE(store_->verify("m", {}, {}).has_value());
}

}  // namespace
}  // namespace airllm::store

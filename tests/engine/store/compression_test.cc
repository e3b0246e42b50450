#include "engine/store/compression.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/json.h"
#include "engine/store/manifest.h"
#include "engine/store/shard.h"
#include "engine/store/store.h"
#include "kernels/backend.h"
#include "tests/engine/store/memory_disk.h"
#include "tests/engine/store/sample_manifest.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

using kernels::NumberFormat;

TEST(Compression, IsReadAsItIsWritten) {
  struct Case {
    const char* text;
    const char* written;
  };
  for (const Case& item : {Case{"q8", "q8,q8"},
                           {"q4", "q4,q8"},
                           {"q4,q4", "q4,q4"},
                           {"", ""},
                           {"q4,keep", "q4,keep"},
                           {"nf4", "nf4,q8"},
                           {"fp8,keep", "fp8,keep"},
                           {"keep,q8", "keep,q8"},
                           {"keep", ""}}) {
    const Result<Compression> read = parse_compression(item.text);
    ASSERT_TRUE(read) << item.text;
    EXPECT_EQ(compression_text(*read), item.written);
    EXPECT_EQ(*parse_compression(item.written), *read);
  }
  for (const char* text : {"q5", "Q4", "q4,", ",q4", "q4,q8,q8", "f16", "q4 ", "\n", ","}) {
    const Result<Compression> read = parse_compression(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kUsage);
    EXPECT_NE(read.error().remedy.find("q8, q4, nf4, fp8 or keep"), std::string::npos);
  }
}

TEST(Compression, TheManifestSaysIt) {
  Manifest manifest = sample_manifest();
  manifest.compression = *parse_compression("q4");
  const Json json = manifest_json(manifest);
  EXPECT_EQ(json.at("layout"), "compressed-rows");
  EXPECT_EQ(json.at("compression"), "q4,q8");
  EXPECT_EQ(parse_manifest(dump_json(json), "m")->compression, manifest.compression);
  // Weights that were packed in a compressed format when they came.
  Manifest packed = sample_manifest();
  packed.compression.keeps_packed = true;
  EXPECT_EQ(manifest_json(packed).at("layout"), "compressed-rows");
  EXPECT_EQ(manifest_json(packed).at("compression"), "keep,keep");
  EXPECT_EQ(parse_manifest(dump_json(manifest_json(packed)), "m")->compression, packed.compression);
  for (const Json& bad : {Json("keep"), Json(""), Json("q3"), Json(4U), Json(nullptr)}) {
    Json changed = json;
    changed["compression"] = bad;
    EXPECT_FALSE(parse_manifest(dump_json(changed), "m")) << dump_json(bad);
  }
  Json plain = json;
  plain["layout"] = "row-major";
  EXPECT_FALSE(parse_manifest(dump_json(plain), "m"));
}

class CompressedSplit : public testing::Test {
 protected:
  CompressedSplit() {
    write_tiny_checkpoint(source_.path(), {.hidden = 96, .intermediate = 80, .biases = true});
    store_ = std::move(*Store::open("/store", disk_));
  }
  Result<Json> split(const std::string& format, const std::string& name = "m",
                     const std::stop_token& stop = {}) {
    engine::SplitRequest request = split_request(source_.path(), name);
    request.format = format;
    return store_->split(request, {}, stop);
  }

  TemporaryFolder source_;
  MemoryDisk disk_;
  std::unique_ptr<Store> store_;
};

TEST_F(CompressedSplit, MatricesAreCompressedAndAllElseIsKept) {
  ASSERT_TRUE(split("q4"));
  ASSERT_TRUE(split("", "plain"));
  const StoredModel model = *store_->open_model("m");
  const StoredModel plain = *store_->open_model("plain");
  size_t compressed = 0;
  for (size_t s = 0; s < model.shards.size(); ++s) {
    for (size_t t = 0; t < model.shards[s].tensors.size(); ++t) {
      const ShardTensor& tensor = model.shards[s].tensors[t];
      const ShardTensor& came = plain.shards[s].tensors[t];
      EXPECT_EQ(tensor.name, came.name);
      EXPECT_EQ(tensor.shape, came.shape);
      const bool is_end = s == 0 || s + 1 == model.shards.size();
      const NumberFormat wanted = tensor.shape.size() == 1 ? NumberFormat::kF32
                                  : is_end                 ? NumberFormat::kQ8
                                                           : NumberFormat::kQ4;
      EXPECT_EQ(tensor.format, wanted) << tensor.name;
      if (tensor.shape.size() == 1) continue;
      ++compressed;
      // Row by row what compress_row() makes of the numbers.
      std::vector<std::byte> stored(tensor.bytes()), numbers(came.bytes());
      ASSERT_TRUE(model.shards[s].file_of(tensor).read_at(tensor.offset_bytes, stored));
      ASSERT_TRUE(plain.shards[s].file_of(came).read_at(came.offset_bytes, numbers));
      const uint64_t width = tensor.shape[1];
      std::vector<char> row(tensor.row_bytes);
      for (uint64_t r = 0; r < tensor.rows; ++r) {
        const auto* const from = reinterpret_cast<const float*>(numbers.data()) + r * width;
        kernels::best_backend().compress_row(wanted, from, width, row.data());
        ASSERT_EQ(std::memcmp(row.data(), stored.data() + r * tensor.row_bytes, row.size()), 0)
            << tensor.name << " row " << r;
      }
    }
  }
  EXPECT_EQ(compressed, 2U + 3 * 7);
  EXPECT_TRUE(store_->verify("m", {}, {}));
  const Json shown = *store_->show("m");
  EXPECT_EQ(shown.at("dtype"), "q4");
}

TEST_F(CompressedSplit, TheSameAgainIsUnchangedAndAnotherFormatIsTaken) {
  ASSERT_TRUE(split("q8"));
  EXPECT_EQ(split("q8")->at("unchanged"), true);
  EXPECT_EQ(split("q8,q8")->at("unchanged"), true);
  for (const char* format : {"", "q4", "q8,keep"}) {
    const Result<Json> other = split(format);
    ASSERT_FALSE(other) << format;
    EXPECT_NE(other.error().message.find("is compressed as q8,q8"), std::string::npos)
        << other.error().message;
  }
  EXPECT_FALSE(split("q9", "n"));
  EXPECT_FALSE(disk_.exists("/store/incoming/n"));
}

// What requantize makes is what a split makes of the same weights, but for what it was made from.
TEST_F(CompressedSplit, AModelOfTheStoreIsASourceAsWell) {
  const auto from = [&](const char* model, const char* format, const char* name) {
    engine::SplitRequest request{name, model, nullptr};
    request.from = engine::ModelRef(model);
    request.format = format;
    return store_->split(request, {}, {});
  };
  ASSERT_TRUE(split("", "plain"));
  for (const char* format : {"q4", "q8,keep", "nf4,nf4", "fp8"}) {
    ASSERT_TRUE(split(format, "split")) << format;
    const Result<Json> made = from("plain", format, "made");
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(made->at("unchanged"), false);
    const std::string split_shards = "/store/models/split/shards";
    EXPECT_EQ(disk_.files_below("/store/models/made/shards"), disk_.files_below(split_shards));
    EXPECT_EQ(disk_.files_below("/store/models/made").at("config.json"),
              disk_.files_below("/store/models/split").at("config.json"));
    EXPECT_TRUE(store_->verify("made", {}, {}));
    EXPECT_EQ(from("plain", format, "made")->at("unchanged"), true);
    EXPECT_EQ(store_->show("made")->at("source"), "plain");
    ASSERT_TRUE(store_->remove("made"));
    ASSERT_TRUE(store_->remove("split"));
  }
}

TEST_F(CompressedSplit, WhatIsCompressedIsNoSource) {
  ASSERT_TRUE(split("keep,q8", "m"));
  engine::SplitRequest request{"n", "m", nullptr};
  request.from = engine::ModelRef("m");
  request.format = "q4";
  const Result<Json> made = store_->split(request, {}, {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUsage);
  EXPECT_NE(made.error().message.find("compressed as keep,q8"), std::string::npos);
  EXPECT_FALSE(disk_.exists("/store/incoming/n"));
  request.from = engine::ModelRef("absent");
  EXPECT_EQ(store_->split(request, {}, {}).error().code, ErrorCode::kNoInput);
}

// A shard that says of a norm that it is compressed would be read as what it is not.
TEST_F(CompressedSplit, WhatCannotBeCompressedIsRefused) {
  ASSERT_TRUE(split("q8"));
  const Result<Manifest> manifest = read_manifest(disk_, "/store/models/m");
  ASSERT_TRUE(manifest);
  const std::string path = "/store/models/m/shards/" + manifest->shards[1].file;
  const std::string text = disk_.files_below("/store/models/m/shards").at(manifest->shards[1].file);
  ASSERT_NE(text.find("compressed-rows"), std::string::npos);
  const auto changed_to = [&](const std::string& from, const std::string& to) {
    std::string damaged = text;
    for (size_t at = 0; (at = damaged.find(from, at)) != std::string::npos; at += to.size()) {
      damaged.replace(at, from.size(), to);
    }
    return damaged;
  };
  struct Case {
    std::string file;
    const char* message;
  };
  for (const Case& item :
       {Case{changed_to("\":\"q8\"", "\":\"q7\""), "format q7"},
        Case{changed_to("\":\"q8\"", "\":\"q4\""), "shape"},
        Case{changed_to("format of ", "former of "), "dtype"},
        Case{changed_to("compressed-rows", "compressed-cows"), "compressed-cows"}}) {
    ASSERT_EQ(item.file.size(), text.size());
    const auto file = std::move(*disk_.open(path, OpenMode::kCreate));
    ASSERT_TRUE(file->write_at(0, std::as_bytes(std::span(item.file))));
    const Result<StoredModel> model = store_->open_model("m");
    ASSERT_FALSE(model) << item.message;
    EXPECT_NE(model.error().message.find(item.message), std::string::npos) << model.error().message;
  }
}

}  // namespace
}  // namespace airllm::store

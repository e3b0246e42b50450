#include "engine/store/compression.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/json.h"
#include "engine/store/manifest.h"
#include "engine/store/shard.h"
#include "engine/store/store.h"
#include "kernels/backend.h"
#include "kernels/compressed.h"
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
                           {"q4,outliers=0.01", "q4,q8,outliers=0.01"},
                           {"q4,values=q8", "q4,q8,values=q8"},
                           {"q4,keep,values=nf4,outliers=0.1", "q4,keep,values=nf4,outliers=0.1"},
                           {"nf4,keep,outliers=5e-1", "nf4,keep,outliers=0.5"},
                           {"keep", ""}}) {
    const Result<Compression> read = parse_compression(item.text);
    ASSERT_TRUE(read) << item.text;
    EXPECT_EQ(compression_text(*read), item.written);
    EXPECT_EQ(*parse_compression(item.written), *read);
  }
  for (const char* text : {"q5", "Q4", "q4,", ",q4", "q4,q8,q8", "f16", "q4 ", "\n", ",",
                           "q4,values=", "q4,values=q9", "q4,values=keep", "q4,values=q8,q8"}) {
    const Result<Compression> read = parse_compression(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kUsage);
    EXPECT_NE(read.error().remedy.find("q8, q4, nf4, fp8 or keep"), std::string::npos);
  }
}

TEST(Compression, OutliersAreAShareOfCompressedWeights) {
  for (const char* text :
       {"q4,outliers=", "q4,outliers=0", "q4,outliers=-0.1", "q4,outliers=0.6", "q4,outliers=nan",
        "q4,outliers=x", "q4,outliers=0.1,q8", "keep,q8,outliers=0.1", "outliers=0.1",
        "q4,outliers=0.1,values=q8", "keep,q8,values=q8"}) {
    const Result<Compression> read = parse_compression(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kUsage);
  }
  const Compression compression = *parse_compression("q4,outliers=0.01");
  EXPECT_EQ(outlier_count(compression, 4096), 41U);
  EXPECT_EQ(outlier_count(compression, 64), 1U);
  EXPECT_EQ(outlier_count(*parse_compression("q4"), 4096), 0U);
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
  Manifest with_outliers = sample_manifest();
  with_outliers.compression = *parse_compression("q4,outliers=0.02");
  Json other = manifest_json(with_outliers);
  EXPECT_EQ(other.at("layout"), "compressed-rows-outliers");
  EXPECT_EQ(parse_manifest(dump_json(other), "m")->compression, with_outliers.compression);
  other["layout"] = "compressed-rows";
  EXPECT_FALSE(parse_manifest(dump_json(other), "m"));
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

// Only values; and where each head has its own, they are as all others.
TEST_F(CompressedSplit, SharedValuesHaveAFormatOfTheirOwn) {
  for (const uint64_t kv_heads : {1, 2, 4}) {
    const TemporaryFolder source;
    write_tiny_checkpoint(source.path(), {.kv_heads = kv_heads});
    const std::string name = "m" + std::to_string(kv_heads);
    engine::SplitRequest request = split_request(source.path(), name);
    request.format = "q4,q8,values=q8";
    ASSERT_TRUE(store_->split(request, {}, {}));
    EXPECT_TRUE(store_->verify(name, {}, {}));
    const StoredModel model = *store_->open_model(name);
    size_t values = 0;
    for (size_t s = 1; s + 1 < model.shards.size(); ++s) {
      for (const ShardTensor& tensor : model.shards[s].tensors) {
        if (tensor.shape.size() == 1) continue;
        const bool is_value = tensor.name.find("v_proj") != std::string::npos;
        values += is_value ? 1 : 0;
        EXPECT_EQ(tensor.format, is_value && kv_heads < 4 ? NumberFormat::kQ8 : NumberFormat::kQ4)
            << tensor.name << ", " << kv_heads << " heads of keys and values";
      }
    }
    EXPECT_EQ(values, 3U);
    EXPECT_EQ(store_->show(name)->at("compression"), "q4,q8,values=q8");
    EXPECT_EQ(store_->show(name)->at("dtype"), "q4");
  }
}

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
  EXPECT_EQ(shown.at("compression"), "q4,q8");
  EXPECT_EQ(store_->show("plain")->at("compression"), Json());
}

// Which inputs vary most, by a loop over all of them.
std::vector<size_t> most_varied(const std::vector<float>& numbers, size_t width, size_t count) {
  std::vector<std::pair<double, size_t>> variances;
  const size_t rows = numbers.size() / width;
  for (size_t i = 0; i < width; ++i) {
    double mean = 0, squares = 0;
    for (size_t r = 0; r < rows; ++r) mean += numbers[r * width + i] / static_cast<double>(rows);
    for (size_t r = 0; r < rows; ++r) squares += std::pow(numbers[r * width + i] - mean, 2);
    variances.emplace_back(-squares, i);
  }
  std::sort(variances.begin(), variances.end());
  std::vector<size_t> out;
  for (size_t j = 0; j < count; ++j) out.push_back(variances[j].second);
  std::sort(out.begin(), out.end());
  return out;
}

TEST_F(CompressedSplit, InputsThatVaryMostStayIn16Bits) {
  ASSERT_TRUE(split("q4,outliers=0.1"));
  ASSERT_TRUE(split("", "plain"));
  const StoredModel model = *store_->open_model("m");
  const StoredModel plain = *store_->open_model("plain");
  for (size_t s = 0; s < model.shards.size(); ++s) {
    for (size_t t = 0; t < model.shards[s].tensors.size(); ++t) {
      const ShardTensor& tensor = model.shards[s].tensors[t];
      const ShardTensor& came = plain.shards[s].tensors[t];
      if (tensor.format != NumberFormat::kQ4) {
        EXPECT_TRUE(tensor.outliers.empty()) << tensor.name;
        continue;
      }
      const uint64_t width = tensor.shape[1];
      std::vector<std::byte> stored(tensor.bytes());
      std::vector<float> numbers(tensor.rows * width);
      ASSERT_TRUE(model.shards[s].file_of(tensor).read_at(tensor.offset_bytes, stored));
      ASSERT_TRUE(plain.shards[s].file_of(came).read_at(
          came.offset_bytes, std::as_writable_bytes(std::span(numbers))));
      const size_t count = (width + 9) / 10;
      EXPECT_EQ(tensor.outliers, most_varied(numbers, width, count)) << tensor.name;
      std::vector<char> row(tensor.row_bytes);
      for (uint64_t r = 0; r < tensor.rows; ++r) {
        kernels::compress_row_with_outliers(
            kernels::best_backend().compress_row, tensor.format, tensor.outliers,
            std::span(numbers).subspan(r * width, width), row.data());
        ASSERT_EQ(std::memcmp(row.data(), stored.data() + r * tensor.row_bytes, row.size()), 0)
            << tensor.name << " row " << r;
      }
    }
  }
  EXPECT_TRUE(store_->verify("m", {}, {}));
  EXPECT_EQ(split("q4,outliers=0.1")->at("unchanged"), true);
  for (const char* other : {"q4", "q4,outliers=0.2"}) EXPECT_FALSE(split(other)) << other;
}

// The places of outliers come from a file: none may lie behind the inputs.
TEST_F(CompressedSplit, OutliersThatCannotBeAreRefused) {
  ASSERT_TRUE(split("q8,outliers=0.1"));
  const std::string folder = "/store/models/m";
  const Result<Manifest> manifest = read_manifest(disk_, folder);
  const std::string name = manifest->shards[1].file;
  const std::string path = folder + "/shards/" + name;
  const std::string text = disk_.files_below(folder + "/shards").at(name);
  const model::StageSpec stage = model::stages(store_->open_model("m")->architecture)[1];
  const auto expect_refused = [&](const std::string& file, const std::string& message) {
    const auto opened = std::move(*disk_.open(path, OpenMode::kCreate));
    ASSERT_TRUE(opened->write_at(0, std::as_bytes(std::span(file))));
    const Result<Shard> shard = open_shard(disk_, path, stage, manifest->shards[1]);
    ASSERT_FALSE(shard) << message;
    EXPECT_NE(shard.error().message.find(message), std::string::npos) << shard.error().message;
  };
  const size_t at = text.find("outliers of ");
  ASSERT_NE(at, std::string::npos);
  std::string more = text;
  const size_t number = text.find("\":\"", at) + 3;
  for (const char digit : {'9', 'x', '-'}) {
    more[number] = digit;
    expect_refused(more, digit == '9' ? "shape" : "outliers");
  }
  // The table is what its hash covers.
  const SafetensorsHeader header = *read_safetensors_header(*std::move(
      *disk_.open("/store/models/m/shards/" + manifest->shards[2].file, OpenMode::kRead)));
  const auto table = std::find_if(header.tensors.begin(), header.tensors.end(),
                                  [](const TensorRecord& r) { return r.name == "outliers"; });
  ASSERT_NE(table, header.tensors.end());
  std::string moved = text;
  moved[header.data_offset + table->begin] ^= 1;
  expect_refused(moved, "damaged");
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
  for (const char* format : {"q4", "q8,keep", "nf4,nf4", "fp8", "q4,outliers=0.05"}) {
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

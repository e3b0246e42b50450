#include "engine/store/manifest.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"
#include "tests/engine/store/sample_manifest.h"

namespace airllm::store {
namespace {

TEST(Manifest, ReadsWhatItWrote) {
  const Json json = manifest_json(sample_manifest());
  const Result<Manifest> read = parse_manifest(dump_json(json), "m");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(manifest_json(*read), json);
  EXPECT_EQ(read->bytes(), 110U);
  EXPECT_EQ(read->shards[0].hash, 0xfedcba9876543210);
}

TEST(Manifest, OfAModelThatIsReadInPlaceSaysWhere) {
  Manifest manifest = sample_manifest();
  manifest.in_place = "/home/a/models/x";
  const Json json = manifest_json(manifest);
  EXPECT_EQ(json.at("layout"), "in-place");
  const Result<Manifest> read = parse_manifest(dump_json(json), "m");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->in_place, manifest.in_place);
  EXPECT_EQ(read->bytes_elsewhere(), 20U);
  for (const char* path : {"", "a", "/a/../b", "/a\n", "/.."}) {
    Json bad = json;
    bad["directory"] = path;
    EXPECT_FALSE(parse_manifest(dump_json(bad), "m").has_value()) << path;
  }
  Json copied = json;
  copied["layout"] = "row-major";
  EXPECT_FALSE(parse_manifest(dump_json(copied), "m").has_value());
}

TEST(Manifest, IsReadStrictly) {
  struct Case {
    const char* name;
    std::function<void(Json&)> damage;
    const char* reason;
  };
  const Case cases[] = {
      {"format", [](Json& j) { j["format"] = "other"; }, "not the manifest"},
      {"no format", [](Json& j) { j.erase("format"); }, "not the manifest"},
      {"version", [](Json& j) { j["version"] = 9; }, "version 9"},
      {"version as text", [](Json& j) { j["version"] = "one"; }, "version one"},
      {"layout", [](Json& j) { j["layout"] = "tiles"; }, "layout tiles"},
      {"unknown key", [](Json& j) { j["more"] = 1; }, "unknown key 'more'"},
      {"missing key", [](Json& j) { j.erase("files"); }, "files is missing"},
      {"kind", [](Json& j) { j["layers"] = "2"; }, "layers"},
      {"negative", [](Json& j) { j["parameters"] = -1; }, "parameters"},
      {"source", [](Json& j) { j["source"] = nullptr; }, "source"},
      {"shards", [](Json& j) { j["shards"] = Json::object(); }, "shards"},
      {"shard path", [](Json& j) { j["shards"][0]["file"] = "../../x"; }, "plain file name"},
      {"file path", [](Json& j) { j["files"][0]["name"] = "a/b"; }, "plain file name"},
      {"short hash", [](Json& j) { j["files"][0]["xxh3"] = "12"; }, "hexadecimal"},
      {"upper-case hash", [](Json& j) { j["files"][0]["xxh3"] = "ABCDEF0123456789"; },
       "hexadecimal"},
      {"extra in shard", [](Json& j) { j["shards"][0]["x"] = 1; }, "unknown key 'x'"},
  };
  for (const Case& c : cases) {
    Json json = manifest_json(sample_manifest());
    c.damage(json);
    const Result<Manifest> read = parse_manifest(dump_json(json), "m.json");
    ASSERT_FALSE(read.has_value()) << c.name;
    EXPECT_EQ(read.error().code, ErrorCode::kData);
    EXPECT_NE(read.error().message.find(c.reason), std::string::npos)
        << c.name << ": " << read.error().message;
    EXPECT_TRUE(read.error().message.starts_with("m.json")) << read.error().message;
  }
  for (const char* text : {"", "[]", "3", "null", "{\"format\":\"airllm-model\"}"}) {
    EXPECT_FALSE(parse_manifest(text, "m").has_value()) << text;
  }
}

TEST(PlainFileName, Validity) {
  EXPECT_TRUE(is_plain_file_name("model-00001-of-00002.safetensors"));
  EXPECT_TRUE(is_plain_file_name("a b\xc3\xa4"));
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string(".a"),
        std::string("a\x7f"), std::string("a\n"), std::string("a\0b", 3), std::string(256, 'a'),
        std::string("\xff")}) {
    EXPECT_FALSE(is_plain_file_name(name)) << name;
  }
}

}  // namespace
}  // namespace airllm::store

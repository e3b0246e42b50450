#include "engine/store/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/store/hash.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

// A header that must be refused, with the length of the data behind it, and a word of the reason.
struct BadHeader {
  const char* name;
  std::string json;
  uint64_t data_bytes;
  const char* reason;
};

std::string entry(const std::string& name, const std::string& rest) {
  return "\"" + name + "\":{" + rest + "}";
}

std::string f32(const std::string& shape, const std::string& offsets) {
  return R"("dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets;
}

std::vector<BadHeader> bad_headers() {
  const std::string good = f32("[2]", "[0,8]");
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += "[";
  return {
      {"Empty", "", 0, "begin with '{'"},
      {"LeadingSpace", " {}", 0, "begin with '{'"},
      {"Array", "[]", 0, "begin with '{'"},
      {"Unfinished", "{", 0, "not valid JSON"},
      {"Trailing", "{}x", 0, "not valid JSON"},
      {"SecondObject", "{}{}", 0, "not valid JSON"},
      {"NullByte", std::string("{}\0", 3), 0, "byte 2 is zero"},
      {"NullByteInside", std::string("{\0}", 3), 0, "byte 1 is zero"},
      {"InvalidUtf8", "{\"\xff\":{}}", 0, "not UTF-8"},
      {"Overlong", "{\"\xc0\x80\":{}}", 0, "not UTF-8"},
      {"DeepNesting", deep, 0, "is not an object"},
      {"DeepInTensor", "{\"a\":{\"shape\":" + std::string(100'000, '['), 0, "wrong kind"},
      {"TensorIsNumber", R"({"a":1})", 0, "is not an object"},
      {"TensorIsList", R"({"a":[]})", 0, "is not an object"},
      {"TensorIsNull", R"({"a":null})", 0, "is not an object"},
      {"TensorIsString", R"({"a":"x"})", 0, "is not an object"},
      {"NoDtype", R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8, "no dtype"},
      {"NoShape", R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8, "no shape"},
      {"NoOffsets", R"({"a":{"dtype":"F32","shape":[2]}})", 8, "no pair of data_offsets"},
      {"UnknownKey", "{" + entry("a", good + R"(,"extra":1)") + "}", 8, "unknown key 'extra'"},
      {"UnknownDtype", R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8, "'F31'"},
      {"LowerCaseDtype", R"({"a":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}})", 8, "'f32'"},
      {"DtypeIsNumber", R"({"a":{"dtype":32,"shape":[2],"data_offsets":[0,8]}})", 8, "wrong kind"},
      {"ShapeIsNumber", R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "wrong kind"},
      {"ShapeIsNegative", "{" + entry("a", f32("[-2]", "[0,8]")) + "}", 8, "wrong kind"},
      {"ShapeIsFraction", "{" + entry("a", f32("[2.0]", "[0,8]")) + "}", 8, "wrong kind"},
      {"ShapeIsNested", "{" + entry("a", f32("[[2]]", "[0,8]")) + "}", 8, "wrong kind"},
      {"ShapeIsHuge", "{" + entry("a", f32("[99999999999999999999]", "[0,8]")) + "}", 8,
       "wrong kind"},
      {"TooManyDimensions",
       "{" + entry("a", f32("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "[0,8]")) + "}", 8,
       "too many dimensions"},
      {"ShapeOverflows", "{" + entry("a", f32("[4294967296,4294967296]", "[0,0]")) + "}", 0,
       "too large"},
      {"BytesOverflow", "{" + entry("a", f32("[4611686018427387904]", "[0,0]")) + "}", 0,
       "too large"},
      {"OffsetsAreText", "{" + entry("a", f32("[2]", R"(["0","8"])")) + "}", 8, "wrong kind"},
      {"OneOffset", "{" + entry("a", f32("[2]", "[0]")) + "}", 8, "no pair of data_offsets"},
      {"ThreeOffsets", "{" + entry("a", f32("[2]", "[0,8,16]")) + "}", 16, "more than two"},
      {"EndBeforeBegin", "{" + entry("a", f32("[2]", "[8,0]")) + "}", 8, "ends before it begins"},
      {"RangeTooShort", "{" + entry("a", f32("[3]", "[0,8]")) + "}", 8, "make 12"},
      {"RangeTooLong", "{" + entry("a", f32("[1]", "[0,8]")) + "}", 8, "make 4"},
      {"FirstGap", "{" + entry("a", f32("[2]", "[4,12]")) + "}", 12, "leaving a gap"},
      {"Gap", "{" + entry("a", good) + "," + entry("b", f32("[2]", "[12,20]")) + "}", 20,
       "leaving a gap"},
      {"Overlap", "{" + entry("a", good) + "," + entry("b", f32("[2]", "[4,12]")) + "}", 12,
       "overlapping"},
      {"SameRange", "{" + entry("a", good) + "," + entry("b", good) + "}", 8, "overlapping"},
      {"TruncatedFile", "{" + entry("a", good) + "}", 7, "truncated"},
      {"BytesBehindTheEnd", "{" + entry("a", good) + "}", 9, "but the file has 9"},
      {"NoTensorsButBytes", "{}", 1, "but the file has 1"},
      {"DuplicateTensor", "{" + entry("a", good) + "," + entry("a", f32("[2]", "[8,16]")) + "}", 16,
       "duplicate tensor 'a'"},
      {"DuplicateDtype", "{" + entry("a", good + R"(,"dtype":"F32")") + "}", 8, "twice"},
      {"DuplicateOffsets", "{" + entry("a", good + R"(,"data_offsets":[0,8])") + "}", 8, "twice"},
      {"MetadataIsText", R"({"__metadata__":"x"})", 0, "is not an object"},
      {"MetadataHasNumber", R"({"__metadata__":{"a":1}})", 0, "not a string"},
      {"MetadataHasObject", R"({"__metadata__":{"a":{}}})", 0, "not a string"},
      {"MetadataTwice", R"({"__metadata__":{},"__metadata__":{}})", 0, "duplicate key"},
      {"MetadataKeyTwice", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "duplicate key"},
  };
}

class BadSafetensorsHeader : public testing::TestWithParam<BadHeader> {};

TEST_P(BadSafetensorsHeader, IsRefused) {
  const BadHeader& bad = GetParam();
  const auto header = parse_safetensors_header(bad.json, bad.data_bytes, "x.safetensors");
  ASSERT_FALSE(header.has_value());
  EXPECT_EQ(header.error().code, ErrorCode::kData);
  EXPECT_NE(header.error().message.find(bad.reason), std::string::npos) << header.error().message;
  EXPECT_TRUE(header.error().message.starts_with("x.safetensors: ")) << header.error().message;
}

INSTANTIATE_TEST_SUITE_P(Table, BadSafetensorsHeader, testing::ValuesIn(bad_headers()),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(SafetensorsHeader, ReadsWhatItWrote) {
  const std::vector<TensorRecord> tensors = {
      {"b", Dtype::kBF16, {3, 5}, 0, 30},
      {"empty", Dtype::kF32, {0, 7}, 30, 30},
      {"scalar", Dtype::kI64, {}, 30, 38},
      {"a \"quoted\" \xc3\xa4", Dtype::kU8, {2}, 38, 40},
  };
  const std::string text = write_safetensors_header({{"format", "pt"}}, tensors, 4096);
  ASSERT_EQ(text.size(), 4096U);
  const auto header = parse_safetensors_header(std::string_view(text).substr(8), 40, "x");
  ASSERT_TRUE(header.has_value()) << header.error().message;
  EXPECT_EQ(header->tensors, tensors);
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, TensorsComeInTheOrderOfTheirBytes) {
  const std::string json =
      "{" + entry("late", f32("[2]", "[8,16]")) + "," + entry("early", f32("[2]", "[0,8]")) + "}";
  const auto header = parse_safetensors_header(json, 16, "x");
  ASSERT_TRUE(header.has_value()) << header.error().message;
  EXPECT_EQ(header->tensors[0].name, "early");
}

// What a file begins with and why it is refused.
struct BadFile {
  std::string bytes;
  const char* reason;
};

TEST(SafetensorsFile, LengthOutOfBoundsIsRefusedBeforeMemoryIsTaken) {
  const TemporaryFolder folder;
  const BadFile files[] = {
      {"", "too few"},
      {std::string(7, '\0'), "too few"},
      {std::string(8, '\0'), "begin with '{'"},
      {std::string("\x03\0\0\0\0\0\0\0{}", 10), "would be 3 bytes"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "would be 18446744073709551615"},
      {std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10), "would be 100000001"},
  };
  for (const BadFile& bad : files) {
    write_file(folder / "x", bad.bytes);
    const auto file = system_disk().open(folder / "x", OpenMode::kRead);
    ASSERT_TRUE(file.has_value());
    const auto header = read_safetensors_header(**file);
    ASSERT_FALSE(header.has_value());
    EXPECT_EQ(header.error().code, ErrorCode::kData);
    EXPECT_NE(header.error().message.find(bad.reason), std::string::npos) << header.error().message;
  }
}

TEST(SafetensorsFile, HeaderAboveTheLimitIsRefusedEvenWhenItIsThere) {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  write_file(path, std::string("\x01\xe1\xf5\x05\0\0\0\0{", 9));
  ASSERT_EQ(::truncate(path.c_str(), 200'000'000), 0);
  const auto file = system_disk().open(path, OpenMode::kRead);
  ASSERT_TRUE(file.has_value());
  const auto header = read_safetensors_header(**file);
  ASSERT_FALSE(header.has_value());
  EXPECT_NE(header.error().message.find("100000001"), std::string::npos);
}

TEST(SafetensorsFile, HashCoversLengthAndHeader) {
  const TemporaryFolder folder;
  const std::string text = write_safetensors_header({}, {{"a", Dtype::kU8, {3}, 0, 3}}, 8);
  write_file(folder / "x", text + "abc");
  const auto file = system_disk().open(folder / "x", OpenMode::kRead);
  const auto header = read_safetensors_header(**file);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  EXPECT_EQ(header->data_offset, text.size());
  EXPECT_EQ(header->hash, xxh3(text));
}

// Any single changed byte of a good header is either refused or still describes the same bytes.
TEST(SafetensorsHeader, SurvivesEveryChangedByte) {
  const std::string good =
      "{" + entry("a", f32("[2,3]", "[0,24]")) + "," + R"("__metadata__":{"k":"v"})" + "}";
  for (size_t at = 0; at < good.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = good;
      changed[at] = static_cast<char>(value);
      const auto header = parse_safetensors_header(changed, 24, "x");
      if (!header) continue;
      ASSERT_EQ(header->tensors.size(), 1U) << changed;
      EXPECT_EQ(header->tensors[0].end, 24U) << changed;
    }
  }
}

}  // namespace
}  // namespace airllm::store

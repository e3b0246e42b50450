// Checkpoints that torch.save wrote (tools/fixtures/pytorch.py), and hostile ones.
#include "engine/store/pytorch.h"

#include <gtest/gtest.h>

#include <cstring>

#include "engine/store/pickle.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

constexpr const char* kFixtures = AIRLLM_SOURCE_DIR "/tests/engine/store/fixtures/";

class PytorchTest : public testing::Test {
 protected:
  Result<SafetensorsHeader> read(const std::string& path) {
    auto file = system_disk().open(path, OpenMode::kRead);
    if (!file) return Unexpected(std::move(file).error());
    return read_pytorch_header(**file);
  }
  Result<SafetensorsHeader> read_bytes(const std::string& bytes) {
    write_file(folder_ / "x.bin", bytes);
    return read(folder_ / "x.bin");
  }
  void expect_refused(const std::string& bytes, const char* part) {
    const Result<SafetensorsHeader> header = read_bytes(bytes);
    ASSERT_FALSE(header.has_value()) << part;
    EXPECT_EQ(header.error().code, ErrorCode::kData);
    EXPECT_NE(header.error().message.find(part), std::string::npos) << header.error().message;
  }
  TemporaryFolder folder_;
};

TEST_F(PytorchTest, FindsWhatPytorchWrote) {
  const std::string path = std::string(kFixtures) + "state.bin";
  const std::string bytes = read_file(path);
  const Result<SafetensorsHeader> header = read(path);
  ASSERT_TRUE(header.has_value()) << header.error().message;
  struct Expected {
    const char* name;
    Dtype dtype;
    std::vector<uint64_t> shape;
  };
  const Expected expected[] = {{"matrix", Dtype::kF32, {2, 3}}, {"half", Dtype::kF16, {3}},
                               {"brain", Dtype::kBF16, {2, 1}}, {"first", Dtype::kF32, {4}},
                               {"last", Dtype::kF32, {2, 4}},   {"number", Dtype::kI64, {}},
                               {"none", Dtype::kF32, {0, 3}}};
  ASSERT_EQ(header->tensors.size(), std::size(expected));
  for (size_t i = 0; i < std::size(expected); ++i) {
    const TensorRecord& tensor = header->tensors[i];
    EXPECT_EQ(tensor.name, expected[i].name);
    EXPECT_EQ(tensor.dtype, expected[i].dtype) << tensor.name;
    EXPECT_EQ(tensor.shape, expected[i].shape) << tensor.name;
    uint64_t elements = 1;
    for (const uint64_t size : tensor.shape) elements *= size;
    ASSERT_EQ(tensor.end - tensor.begin, elements * dtype_bytes(tensor.dtype)) << tensor.name;
    ASSERT_LE(header->data_offset + tensor.end, bytes.size());
  }
  const auto floats = [&](size_t tensor) {
    const TensorRecord& record = header->tensors[tensor];
    std::vector<float> numbers((record.end - record.begin) / sizeof(float));
    std::memcpy(numbers.data(), bytes.data() + record.begin, record.end - record.begin);
    return numbers;
  };
  EXPECT_EQ(floats(0), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(floats(3), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(floats(4), (std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(bytes.substr(header->tensors[1].begin, 6), std::string("\x00\x3c\x00\xc0\x00\x38", 6));
}

TEST_F(PytorchTest, WhatIsNotContiguousIsRefused) {
  expect_refused(read_file(std::string(kFixtures) + "turned.bin"), "not contiguous");
}

TEST_F(PytorchTest, OlderFilesAndOthersAreRefused) {
  expect_refused(std::string("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15),
                 "since version 1.6");
  expect_refused("", "since version 1.6");
  expect_refused(std::string("PK\x03\x04", 4) + std::string(100, '\0'), "no complete ZIP archive");
}

TEST_F(PytorchTest, DamageIsNoticedOrChangesNothingThatIsWanted) {
  const std::string good = read_file(std::string(kFixtures) + "state.bin");
  for (size_t length = 0; length < good.size(); length += 7) {
    EXPECT_FALSE(read_bytes(good.substr(0, length)).has_value()) << length;
  }
  for (size_t at = 0; at < good.size(); at += 3) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    const Result<SafetensorsHeader> header = read_bytes(damaged);
    if (!header) {
      EXPECT_EQ(header.error().code, ErrorCode::kData) << at;
      continue;
    }
    for (const TensorRecord& tensor : header->tensors) EXPECT_LE(tensor.end, good.size()) << at;
  }
}

void expect_pickle_refused(const std::string& pickle, const char* part) {
  const auto tensors = read_pickled_tensors(pickle, "x.bin");
  ASSERT_FALSE(tensors.has_value()) << part;
  EXPECT_EQ(tensors.error().code, ErrorCode::kData);
  EXPECT_NE(tensors.error().message.find(part), std::string::npos) << tensors.error().message;
  EXPECT_NE(tensors.error().message.find("x.bin"), std::string::npos);
}

TEST(Pickle, WhatRunsCodeIsRefusedByItsName) {
  // os.system("true"), as pickle writes it in protocols 2 and 4.
  expect_pickle_refused(
      "\x80\x02"
      "cposix\nsystem\nq\x01X\x04\x00\x00\x00trueq\x02\x85q\x03R.",
      "posix.system");
  expect_pickle_refused("\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
                        "posix.system");
  expect_pickle_refused("cbuiltins\neval\n.", "builtins.eval");
  expect_pickle_refused("c\x1b[31m\nx\n.", "x");
}

TEST(Pickle, OperationsThatNoTensorNeedsAreRefused) {
  for (const char code : {'i', 'o', '\x81', '\x92', 'P', 'B', 'S', 'V'}) {
    expect_pickle_refused(std::string("\x80\x02(") + code, "operation 0x");
  }
}

TEST(Pickle, DamageIsAnError) {
  using namespace std::string_literals;
  const std::string damaged[] = {"",
                                 "."s,
                                 "}"s,
                                 "0."s,
                                 "R."s,
                                 "s."s,
                                 "u."s,
                                 "t."s,
                                 "(."s,
                                 "h\0."s,
                                 "}}s."s,
                                 "Q."s,
                                 "]a."s,
                                 ")R."s,
                                 "N."s,
                                 "K\1."s,
                                 "}(K\1u."s,
                                 "\x8a\xff."s,
                                 "X\xff\xff\xff\xff."s,
                                 "X\1\0\0\0\xff."s,
                                 "\x8c\5ab"s,
                                 "b."s};
  for (const std::string& pickle : damaged) {
    const auto tensors = read_pickled_tensors(pickle, "x");
    ASSERT_FALSE(tensors.has_value()) << pickle;
    EXPECT_EQ(tensors.error().code, ErrorCode::kData);
  }
  // Tuples in tuples, and more objects than there may be.
  EXPECT_TRUE(read_pickled_tensors("}.", "x").has_value());
  EXPECT_FALSE(read_pickled_tensors(std::string(1'000'000, ')') + ".", "x").has_value());
  EXPECT_FALSE(read_pickled_tensors(")" + std::string(1'000'000, '\x85') + ".", "x").has_value());
}

TEST(Pickle, NumbersThatWouldWrapAreErrors) {
  using namespace std::string_literals;
  const std::string storage =
      "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\4tQ"s;
  const auto tensor = [&](const std::string& offset, const std::string& sizes,
                          const std::string& strides) {
    return "}X\1\0\0\0w"s + "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + sizes +
           strides + "\x89}tRs.";
  };
  const std::string good = tensor("K\0"s, "K\2K\2\x86"s, "K\2K\1\x86"s);
  const auto tensors = read_pickled_tensors(good, "x");
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 1U);
  EXPECT_EQ(tensors->front().name, "w");
  EXPECT_EQ(tensors->front().storage, "0");
  EXPECT_EQ(tensors->front().elements, 4U);
  const std::string huge = "\x8a\x08\0\0\0\0\0\0\0\x40"s;
  expect_pickle_refused(tensor("K\1"s, "K\2K\2\x86"s, "K\2K\1\x86"s), "outside its storage");
  expect_pickle_refused(tensor(huge, "K\1\x85"s, "K\1\x85"s), "outside its storage");
  expect_pickle_refused(tensor("J\xff\xff\xff\xff"s, "K\1\x85"s, "K\1\x85"s), "outside");
  expect_pickle_refused(tensor("K\0"s, huge + huge + "\x86"s, huge + "K\1\x86"s), "damaged");
  expect_pickle_refused(tensor("K\0"s, "K\2\x85"s, "K\2K\1\x86"s), "damaged");
}

}  // namespace
}  // namespace airllm::store

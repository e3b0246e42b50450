#include "engine/store/packed.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/json.h"
#include "kernels/compressed.h"
#include "kernels/convert.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

using kernels::NumberFormat;

constexpr const char* kWeight = "layer.weight";

// One file of tensors, and what is found in it.
class PackedTest : public testing::Test {
 protected:
  void add(const std::string& name, Dtype dtype, std::vector<uint64_t> shape,
           const std::string& bytes) {
    index_.tensors[name] = FoundTensor{0, data_.size(), dtype, std::move(shape)};
    data_ += bytes;
  }
  void add(const std::string& name, std::vector<uint64_t> shape,
           const std::vector<float>& numbers) {
    add(name, Dtype::kF32, std::move(shape),
        std::string(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float)));
  }

  Result<std::shared_ptr<const PackedWeight>> find(const std::vector<uint64_t>& shape,
                                                   model::TensorPart part = {}) {
    index_.label = "DIR";
    index_.files.clear();
    write_file(folder_ / "weights", data_);
    index_.files.push_back(*system_disk().open(folder_ / "weights", OpenMode::kRead));
    const std::string name = part.name.empty() ? kWeight : part.name;
    return find_packed(quantization_, index_, name, {kWeight, shape, false, std::move(part)});
  }

  void expect_refused(const std::vector<uint64_t>& shape,
                      std::initializer_list<const char*> parts) {
    const auto found = find(shape);
    ASSERT_FALSE(found.has_value());
    EXPECT_EQ(found.error().code, ErrorCode::kData);
    for (const char* part : parts) {
      EXPECT_NE(found.error().message.find(part), std::string::npos)
          << found.error().message << "\nlacks: " << part;
    }
  }

  // In one piece, and cut at every row.
  void expect_expands_to(const PackedWeight& weight, const std::vector<float>& expected,
                         uint64_t columns) {
    std::vector<float> all(expected.size());
    ASSERT_TRUE(weight.expand(index_.files, 0, all).has_value());
    EXPECT_EQ(all, expected);
    for (uint64_t row = 0; row < expected.size() / columns; ++row) {
      std::vector<float> rest(expected.size() - row * columns);
      ASSERT_TRUE(weight.expand(index_.files, row, rest).has_value());
      ASSERT_TRUE(std::equal(rest.begin(), rest.end(), expected.begin() + row * columns)) << row;
      rest.resize(columns);
      ASSERT_TRUE(weight.expand(index_.files, row, rest).has_value());
      ASSERT_TRUE(std::equal(rest.begin(), rest.end(), expected.begin() + row * columns)) << row;
    }
  }

  // Rows in the exact format, in one piece and cut, are the numbers that the weight expands to.
  void expect_exact_rows(const PackedWeight& weight, uint64_t rows, uint64_t columns) {
    const NumberFormat format = weight.exact_format().value();
    const size_t row_bytes = kernels::row_bytes(format, columns);
    std::vector<float> expected(rows * columns), numbers(columns);
    ASSERT_TRUE(weight.expand(index_.files, 0, expected));
    for (const uint64_t count : {rows, uint64_t{1}, uint64_t{2}}) {
      for (uint64_t first = 0; first + count <= rows; first += count) {
        std::vector<std::byte> copied(count * row_bytes);
        ASSERT_TRUE(weight.copy_rows(index_.files, first, copied));
        for (uint64_t r = 0; r < count; ++r) {
          kernels::expand_row(format, reinterpret_cast<const char*>(copied.data()) + r * row_bytes,
                              numbers);
          ASSERT_TRUE(
              std::equal(numbers.begin(), numbers.end(),
                         expected.begin() + static_cast<std::ptrdiff_t>((first + r) * columns)))
              << first << " " << r;
        }
      }
    }
  }

  std::string random_bytes(size_t count) {
    std::string out(count, '\0');
    for (char& byte : out) byte = static_cast<char>(random_());
    return out;
  }
  std::vector<float> random_numbers(size_t count) {
    std::vector<float> out(count);
    for (float& number : out) number = std::uniform_real_distribution<float>(0.01F, 1)(random_);
    return out;
  }

  TemporaryFolder folder_;
  TensorIndex index_;
  std::string data_ = std::string(24, '\0');
  Quantization quantization_;
  std::minstd_rand random_{7};
};

class Fp8Test : public PackedTest {
 protected:
  Fp8Test() { quantization_.method = Quantization::Method::kFp8; }

  // Codes without NaN, which is not equal to itself.
  std::string codes(size_t count) {
    std::string out = random_bytes(count);
    for (char& code : out) {
      if ((code & 0x7f) == 0x7f) code = 0x11;
    }
    return out;
  }
};

TEST_F(Fp8Test, EachBlockHasItsScale) {
  constexpr uint64_t kRows = 260, kColumns = 150;
  const std::string bytes = codes(kRows * kColumns);
  const std::vector<float> scales = random_numbers(3 * 2);
  add(kWeight, Dtype::kF8E4M3, {kRows, kColumns}, bytes);
  add("layer.weight_scale_inv", {3, 2}, scales);
  const auto weight = find({kRows, kColumns});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  std::vector<float> expected;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const float scale = scales[i / kColumns / 128 * 2 + i % kColumns / 128];
    expected.push_back(kernels::f8_e4m3_to_f32(static_cast<uint8_t>(bytes[i])) * scale);
  }
  expect_expands_to(**weight, expected, kColumns);
  EXPECT_EQ((*weight)->format(), NumberFormat::kF16);
  EXPECT_TRUE(index_.used.contains("layer.weight_scale_inv"));
  ASSERT_EQ((*weight)->exact_format(), NumberFormat::kFP8);
  expect_exact_rows(**weight, kRows, kColumns);
}

TEST_F(Fp8Test, ACodeThatIsNoNumberSpoilsItsBlock) {
  std::string bytes = codes(2 * 300);
  bytes[300 + 130] = '\x7f';
  add(kWeight, Dtype::kF8E4M3, {2, 300}, bytes);
  add("layer.weight_scale_inv", {1, 3}, {1.0F, 1.0F, 1.0F});
  const auto weight = find({2, 300});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  const size_t row_bytes = kernels::row_bytes(NumberFormat::kFP8, 300);
  std::vector<std::byte> rows(2 * row_bytes);
  ASSERT_TRUE((*weight)->copy_rows(index_.files, 0, rows));
  for (size_t r = 0; r < 2; ++r) {
    std::vector<float> numbers(300);
    kernels::expand_row(NumberFormat::kFP8,
                        reinterpret_cast<const char*>(rows.data()) + r * row_bytes, numbers);
    for (size_t i = 0; i < 300; ++i) {
      EXPECT_EQ(std::isnan(numbers[i]), r == 1 && i >= 128 && i < 256) << i;
    }
  }
}

TEST_F(Fp8Test, OneScaleAndScalesOfOtherFormats) {
  quantization_.block.reset();
  const std::string bytes = codes(15);
  add(kWeight, Dtype::kF8E4M3, {3, 5}, bytes);
  const std::vector<std::pair<Dtype, std::string>> halves = {
      {Dtype::kBF16, std::string("\x00\x3f", 2)},  // each is 0.5
      {Dtype::kF16, std::string("\x00\x38", 2)},
      {Dtype::kF8E8M0, "\x7e"}};
  std::vector<float> expected;
  for (const char code : bytes) {
    expected.push_back(0.5F * kernels::f8_e4m3_to_f32(static_cast<uint8_t>(code)));
  }
  for (const auto& [dtype, half] : halves) {
    add("layer.weight_scale_inv", dtype, {}, half);
    const auto weight = find({3, 5});
    ASSERT_TRUE(weight.has_value()) << weight.error().message;
    expect_expands_to(**weight, expected, 5);
    expect_exact_rows(**weight, 3, 5);
  }
}

TEST_F(Fp8Test, AStackOfExpertsHasItsScalesInAStack) {
  quantization_.block = Quantization::Block{2, 4};
  const std::string bytes = codes(3 * 3 * 5);
  const std::vector<float> scales = random_numbers(3 * 2 * 2);
  add("experts", Dtype::kF8E4M3, {3, 3, 5}, bytes);
  add("experts_scale_inv", {3, 2, 2}, scales);
  const auto weight = find({3, 5}, {"experts", {3, 3, 5}, 2});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  std::vector<float> expected;
  for (size_t i = 0; i < 15; ++i) {
    expected.push_back(kernels::f8_e4m3_to_f32(static_cast<uint8_t>(bytes[30 + i])) *
                       scales[8 + i / 5 / 2 * 2 + i % 5 / 4]);
  }
  expect_expands_to(**weight, expected, 5);
  EXPECT_EQ((*weight)->exact_format(), std::nullopt);  // its blocks are narrower than a row's
}

TEST_F(Fp8Test, WhatDoesNotFitIsRefused) {
  add(kWeight, Dtype::kF8E4M3, {3, 5}, codes(15));
  expect_refused({3, 5}, {"layer.weight_scale_inv", "missing"});
  add("layer.weight_scale_inv", {2}, {1, 1});
  expect_refused({3, 5}, {"layer.weight_scale_inv", "F32[2]", "1 numbers"});
  expect_refused({5, 3}, {"layer.weight", "F8_E4M3[3, 5]", "[5, 3]"});
  add("layer.weight_scale_inv", Dtype::kI32, {1}, "1234");
  expect_refused({3, 5}, {"layer.weight_scale_inv", "I32"});
  add(kWeight, {3, 5}, std::vector<float>(15));
  const auto plain = find({3, 5});
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(*plain, nullptr);
}

class BitsandbytesTest : public PackedTest {
 protected:
  BitsandbytesTest() { quantization_.method = Quantization::Method::kBitsandbytes; }

  void add_state(const Json& state, const char* kind = "nf4") {
    const std::string text = dump_json(state);
    add(std::string("layer.weight.quant_state.bitsandbytes__") + kind, Dtype::kU8, {text.size()},
        text);
  }
  static unsigned code(const std::string& bytes, size_t i) {
    const auto byte = static_cast<uint8_t>(bytes[i / 2]);
    return i % 2 == 0 ? byte >> 4 : byte & 15;
  }
};

TEST_F(BitsandbytesTest, EightBits) {
  quantization_.format = NumberFormat::kF32;
  const std::string bytes = random_bytes(15);
  const std::vector<float> scales = random_numbers(3);
  add(kWeight, Dtype::kI8, {3, 5}, bytes);
  expect_refused({3, 5}, {"layer.SCB", "missing"});
  add("layer.SCB", {3}, scales);
  add("layer.weight_format", Dtype::kU8, {}, std::string(1, '\0'));
  const auto weight = find({3, 5});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  std::vector<float> expected;
  for (size_t i = 0; i < 15; ++i) {
    expected.push_back(static_cast<float>(static_cast<int8_t>(bytes[i])) * (scales[i / 5] / 127));
  }
  expect_expands_to(**weight, expected, 5);
  EXPECT_EQ((*weight)->format(), NumberFormat::kF32);
  expect_refused({5, 3}, {"layer.weight", "I8[3, 5]"});
  add("layer.weight_format", Dtype::kU8, {}, "\x02");
  expect_refused({3, 5}, {"layer.weight_format", "rows"});
}

TEST_F(BitsandbytesTest, FourBitsWithScalesAcrossRows) {
  // An odd width, so that rows begin in the middle of a byte; a block that is no divisor of it.
  const std::string bytes = random_bytes(18);
  const std::vector<float> values = random_numbers(16), scales = random_numbers(9);
  add(kWeight, Dtype::kU8, {18, 1}, bytes);
  add("layer.weight.absmax", {9}, scales);
  add("layer.weight.quant_map", {16}, values);
  add_state({{"blocksize", 4}, {"dtype", "float32"}, {"shape", {5, 7}}, {"quant_type", "fp4"}},
            "fp4");
  const auto weight = find({5, 7});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  std::vector<float> expected;
  for (size_t i = 0; i < 35; ++i) expected.push_back(values[code(bytes, i)] * scales[i / 4]);
  expect_expands_to(**weight, expected, 7);
  EXPECT_EQ((*weight)->format(), NumberFormat::kF32);
}

TEST_F(BitsandbytesTest, FourBitsWithNestedScales) {
  const std::string bytes = random_bytes(18), scales = random_bytes(9);
  const std::vector<float> values = random_numbers(16), scale_values = random_numbers(256);
  const std::vector<float> nested = random_numbers(3);
  add(kWeight, Dtype::kBF16, {9, 1}, bytes);  // a storage of other numbers
  add("layer.weight.absmax", Dtype::kU8, {9}, scales);
  add("layer.weight.quant_map", {16}, values);
  add("layer.weight.nested_absmax", {3}, nested);
  add("layer.weight.nested_quant_map", {256}, scale_values);
  add_state({{"blocksize", 4},
             {"dtype", "bfloat16"},
             {"shape", {5, 7}},
             {"nested_blocksize", 4},
             {"nested_dtype", "float32"},
             {"nested_offset", 0.25}});
  const auto weight = find({5, 7});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  std::vector<float> expected;
  for (size_t i = 0; i < 35; ++i) {
    const size_t block = i / 4;
    const float scale =
        scale_values[static_cast<uint8_t>(scales[block])] * nested[block / 4] + 0.25F;
    expected.push_back(values[code(bytes, i)] * scale);
  }
  expect_expands_to(**weight, expected, 7);
  EXPECT_EQ((*weight)->format(), NumberFormat::kF16);
}

// The codes and scales as they came, in rows of nf4.
TEST_F(BitsandbytesTest, NF4HasAnExactFormat) {
  const std::string bytes = random_bytes(5 * 128 / 2), scales = random_bytes(10);
  const std::vector<float> values(kernels::kNF4Values.begin(), kernels::kNF4Values.end());
  const std::vector<float> scale_values = random_numbers(256), nested = random_numbers(3);
  add(kWeight, Dtype::kU8, {320, 1}, bytes);
  add("layer.weight.absmax", Dtype::kU8, {10}, scales);
  add("layer.weight.quant_map", {16}, values);
  add("layer.weight.nested_absmax", {3}, nested);
  add("layer.weight.nested_quant_map", {256}, scale_values);
  const Json state{{"blocksize", 64},       {"dtype", "float32"},        {"shape", {5, 128}},
                   {"nested_blocksize", 4}, {"nested_dtype", "float32"}, {"nested_offset", 0.25}};
  add_state(state);
  const auto weight = find({5, 128});
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  ASSERT_EQ((*weight)->exact_format(), NumberFormat::kNF4);
  expect_exact_rows(**weight, 5, 128);
}

TEST_F(BitsandbytesTest, WhatNF4RowsCannotHoldHasNone) {
  std::vector<float> values(kernels::kNF4Values.begin(), kernels::kNF4Values.end());
  const auto exact_format = [&](uint64_t columns, uint64_t block) {
    add(kWeight, Dtype::kU8, {2 * columns / 2, 1}, std::string(columns, '\x5'));
    add("layer.weight.absmax", {(2 * columns + block - 1) / block},
        std::vector<float>((2 * columns + block - 1) / block, 1.0F));
    add("layer.weight.quant_map", {16}, values);
    add_state({{"blocksize", block}, {"dtype", "float32"}, {"shape", {2, columns}}});
    const auto weight = find({2, columns});
    return weight ? (*weight)->exact_format() : std::nullopt;
  };
  EXPECT_EQ(exact_format(64, 64), NumberFormat::kNF4);
  EXPECT_EQ(exact_format(96, 64), std::nullopt);  // a block lies across two rows
  EXPECT_EQ(exact_format(128, 128), std::nullopt);
  values[3] += 1e-6F;  // other values
  EXPECT_EQ(exact_format(64, 64), std::nullopt);
}

TEST_F(BitsandbytesTest, AStateThatDoesNotFitIsRefused) {
  const Json good{{"blocksize", 64}, {"dtype", "float16"}, {"shape", {4, 8}}};
  const auto with = [&](const char* key, const Json& value) {
    Json state = good;
    state[key] = value;
    return state;
  };
  add(kWeight, Dtype::kU8, {16, 1}, random_bytes(16));
  add_state(good);
  expect_refused({4, 8}, {"layer.weight.quant_map", "missing"});
  add("layer.weight.quant_map", {16}, random_numbers(16));
  add("layer.weight.absmax", {1}, {1});
  ASSERT_TRUE(find({4, 8}).has_value());
  expect_refused({8, 4}, {"quant_state", "shape", "[4,8]", "[8, 4]"});
  for (const Json& shape : {Json(nullptr), Json(4), Json::array(), Json::array({8, 4})}) {
    add_state(with("shape", shape));
    expect_refused({4, 8}, {"quant_state", "shape"});
  }
  for (const Json& size : {Json(0), Json(-1), Json("64"), Json(nullptr), Json(1e30)}) {
    add_state(with("blocksize", size));
    expect_refused({4, 8}, {"quant_state", "blocksize"});
  }
  add_state(with("dtype", "int8"));
  expect_refused({4, 8}, {"quant_state", "int8"});
  add_state(with("nested_blocksize", 256));
  expect_refused({4, 8}, {"layer.weight.absmax", "F32[1]", "U8"});
  add_state(with("blocksize", 16));
  expect_refused({4, 8}, {"layer.weight.absmax", "2 numbers"});
  add("layer.weight.quant_state.bitsandbytes__nf4", Dtype::kU8, {4}, "nope");
  expect_refused({4, 8}, {"quant_state"});
  add_state(good);
  add(kWeight, Dtype::kU8, {17, 1}, random_bytes(17));
  expect_refused({4, 8}, {"layer.weight", "U8[17, 1]", "16 bytes"});
}

Result<Quantization> parse(const Json& settings, const char* dtype = "float16") {
  const Json root{{"torch_dtype", dtype}, {"quantization_config", settings}};
  return read_quantization({root, "config.json"});
}

TEST(ReadQuantization, Methods) {
  using Method = Quantization::Method;
  const auto fp8 = parse({{"quant_method", "fp8"}, {"weight_block_size", Json::array({64U, 32U})}});
  ASSERT_TRUE(fp8.has_value()) << fp8.error().message;
  EXPECT_EQ(fp8->method, Method::kFp8);
  ASSERT_TRUE(fp8->block.has_value());
  EXPECT_EQ(fp8->block->rows, 64U);
  EXPECT_EQ(fp8->block->columns, 32U);
  EXPECT_EQ(fp8->format, NumberFormat::kF16);
  EXPECT_EQ(parse({{"quant_method", "fp8"}}, "float32")->format, NumberFormat::kF32);
  EXPECT_FALSE(parse({{"quant_method", "fp8"}, {"weight_block_size", nullptr}})->block);
  EXPECT_EQ(parse({{"quant_method", "fp8"}}, "float8")->block->columns, 128U);
  EXPECT_EQ(parse({{"quant_method", "fp8"}}, "float8")->format, NumberFormat::kF16);
  EXPECT_EQ(parse({{"quant_method", "bitsandbytes"}})->method, Method::kBitsandbytes);
  EXPECT_EQ(parse({{"load_in_4bit", true}})->method, Method::kBitsandbytes);
  EXPECT_EQ(read_quantization({Json::object(), "config.json"})->method, Method::kNone);
}

TEST(ReadQuantization, WhatIsNotKnownIsNamed) {
  const std::pair<Json, const char*> cases[] = {
      {Json{{"quant_method", "gptq"}, {"bits", 4}}, "gptq"},
      {Json{{"bits", 4}}, "quant_method"},
      {Json{{"quant_method", "fp8"}, {"fmt", "e5m2"}}, "e5m2"},
      {Json{{"quant_method", "fp8"}, {"weight_block_size", Json::array({128U})}},
       "weight_block_size"},
      {Json{{"quant_method", "fp8"}, {"weight_block_size", Json::array({0U, 1U})}},
       "weight_block_size"},
      {Json(4), "quantization_config"}};
  for (const auto& [settings, named] : cases) {
    const auto found = parse(settings);
    ASSERT_FALSE(found.has_value()) << dump_json(settings);
    EXPECT_EQ(found.error().code, ErrorCode::kData);
    EXPECT_NE(found.error().message.find(named), std::string::npos) << found.error().message;
  }
}

}  // namespace
}  // namespace airllm::store

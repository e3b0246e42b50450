// Every value of the 16-bit formats, on every backend.
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/convert.h"
#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

class NumberFormats : public BackendTest {
 protected:
  // All 65,536 values at once, and each by itself: vectors and remainders.
  void expect_exact(NumberFormat format) {
    constexpr size_t kCount = 65536;
    StoredNumbers numbers(format, kCount);
    for (size_t i = 0; i < kCount; ++i) numbers.set_bits(i, static_cast<uint32_t>(i));
    std::vector<float> together(kCount);
    backend().to_f32(numbers.data(), format, together.data(), kCount);
    for (size_t i = 0; i < kCount; ++i) {
      float alone = 0;
      backend().to_f32(numbers.at(i), format, &alone, 1);
      const double expected = numbers.value(i);
      for (const float value : {together[i], alone}) {
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(value)) << i;
        } else {
          ASSERT_EQ(expected, static_cast<double>(value)) << i;
          ASSERT_EQ(std::signbit(expected), std::signbit(value)) << i;
        }
      }
    }
  }
};

TEST_P(NumberFormats, EveryF16IsExact) { expect_exact(NumberFormat::kF16); }
TEST_P(NumberFormats, EveryBf16IsExact) { expect_exact(NumberFormat::kBF16); }

TEST_P(NumberFormats, F32IsCopied) {
  const StoredNumbers numbers = random_.stored(NumberFormat::kF32, 1003);
  std::vector<float> out(numbers.size());
  backend().to_f32(numbers.data(), NumberFormat::kF32, out.data(), out.size());
  EXPECT_EQ(0, std::memcmp(out.data(), numbers.data(), out.size() * sizeof(float)));
}

INSTANTIATE_TEST_SUITE_P(Backends, NumberFormats, ::testing::ValuesIn(kBackendNames), backend_name);

// Into a format and back: every value stays, and the middle between neighbours goes to the even
// one.
void expect_rounds(NumberFormat format, uint32_t infinity) {
  StoredNumbers numbers(format, 2);
  const auto stored = [&](double number) {
    const auto rounded = static_cast<float>(number);
    EXPECT_EQ(static_cast<double>(rounded), number);
    return format == NumberFormat::kF16 ? f32_to_f16(rounded) : f32_to_bf16(rounded);
  };
  for (uint32_t bits = 0; bits < infinity; ++bits) {
    numbers.set_bits(0, bits);
    const double here = numbers.value(0);
    ASSERT_EQ(stored(here), bits);
    ASSERT_EQ(stored(-here), bits | 0x8000u);
    if (bits + 1 == infinity) break;
    numbers.set_bits(1, bits + 1);
    const double next = numbers.value(1);
    if (static_cast<double>(static_cast<float>((here + next) / 2)) != (here + next) / 2) continue;
    ASSERT_EQ(stored((here + next) / 2), bits + bits % 2) << bits;
    ASSERT_EQ(stored(-(here + next) / 2), (bits + bits % 2) | 0x8000u) << bits;
  }
}

TEST(Rounding, ToF16) {
  expect_rounds(NumberFormat::kF16, 0x7c00);
  EXPECT_EQ(f32_to_f16(65519.99F), 0x7bffu);
  EXPECT_EQ(f32_to_f16(65520), 0x7c00u);
  EXPECT_EQ(f32_to_f16(-1e30F), 0xfc00u);
  EXPECT_EQ(f32_to_f16(HUGE_VALF), 0x7c00u);
  EXPECT_EQ(f32_to_f16(1.0F + 0x1.1p-11F), 0x3c01u);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
}

TEST(Rounding, ToBf16) {
  expect_rounds(NumberFormat::kBF16, 0x7f80);
  EXPECT_EQ(f32_to_bf16(HUGE_VALF), 0x7f80u);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80u);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

// The numbers of the OCP's specification (OFP8, revision 1.0, table 2), and all between them.
TEST(Fp8, E4m3) {
  EXPECT_EQ(f8_e4m3_to_f32(0x00), 0);
  EXPECT_EQ(f8_e4m3_to_f32(0x01), 0x1p-9F);
  EXPECT_EQ(f8_e4m3_to_f32(0x07), 0.875F * 0x1p-6F);
  EXPECT_EQ(f8_e4m3_to_f32(0x08), 0x1p-6F);
  EXPECT_EQ(f8_e4m3_to_f32(0x38), 1);
  EXPECT_EQ(f8_e4m3_to_f32(0x7e), 448);
  EXPECT_EQ(f8_e4m3_to_f32(0xfe), -448);
  EXPECT_TRUE(std::isnan(f8_e4m3_to_f32(0x7f)));
  EXPECT_TRUE(std::isnan(f8_e4m3_to_f32(0xff)));
  for (unsigned code = 8; code < 0x7f; ++code) {
    const float expected =
        std::ldexp(1 + static_cast<float>(code % 8) / 8, static_cast<int>(code / 8) - 7);
    EXPECT_EQ(f8_e4m3_to_f32(static_cast<uint8_t>(code)), expected) << code;
  }
}

TEST(NumberFormat, NamesAndSizes) {
  EXPECT_STREQ("f32", number_format_name(NumberFormat::kF32));
  EXPECT_STREQ("f16", number_format_name(NumberFormat::kF16));
  EXPECT_STREQ("bf16", number_format_name(NumberFormat::kBF16));
  EXPECT_EQ(4u, bytes_per_element(NumberFormat::kF32));
  EXPECT_EQ(2u, bytes_per_element(NumberFormat::kF16));
  EXPECT_EQ(2u, bytes_per_element(NumberFormat::kBF16));
}

}  // namespace
}  // namespace airllm::kernels::testing

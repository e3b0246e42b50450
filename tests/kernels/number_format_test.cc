// Every value of the 16-bit formats, on every backend.
#include <vector>

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

INSTANTIATE_TEST_SUITE_P(Backends, NumberFormats, ::testing::ValuesIn(backends()), backend_name);

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

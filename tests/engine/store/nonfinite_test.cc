#include "engine/store/nonfinite.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kernels/convert.h"

namespace airllm::store {
namespace {

using kernels::NumberFormat;

std::vector<std::byte> numbers_of(NumberFormat format, const std::vector<float>& numbers) {
  std::vector<std::byte> out(numbers.size() * kernels::bytes_per_element(format));
  kernels::with_format(format, [&]<NumberFormat F>() {
    for (size_t i = 0; i < numbers.size(); ++i) kernels::store<F>(out.data(), i, numbers[i]);
  });
  return out;
}

constexpr NumberFormat kPlain[] = {NumberFormat::kF32, NumberFormat::kF16, NumberFormat::kBF16};

TEST(Nonfinite, OneIsFoundAnywhere) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const NumberFormat format : kPlain) {
    for (const float odd : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
      for (size_t count = 1; count <= 9; ++count) {
        for (size_t at = 0; at < count; ++at) {
          std::vector<float> numbers(count, -1.5F);
          numbers[at] = odd;
          EXPECT_TRUE(has_nonfinite(format, numbers_of(format, numbers))) << at << " of " << count;
        }
      }
    }
  }
}

TEST(Nonfinite, OthersAreFinite) {
  for (const NumberFormat format : kPlain) {
    EXPECT_FALSE(has_nonfinite(format, {}));
    for (const float number : {0.0F, -0.0F, 1.0F, -1e-30F, 65504.0F, -65504.0F, 6e-8F}) {
      for (size_t count = 1; count <= 9; ++count) {
        EXPECT_FALSE(has_nonfinite(format, numbers_of(format, std::vector<float>(count, number))));
      }
    }
  }
  // The largest numbers.
  EXPECT_FALSE(has_nonfinite(NumberFormat::kF32,
                             numbers_of(NumberFormat::kF32, {3.4028234e38F, -3.4028234e38F})));
  EXPECT_FALSE(
      has_nonfinite(NumberFormat::kBF16, numbers_of(NumberFormat::kBF16, {3.38e38F, -3.38e38F})));
}

}  // namespace
}  // namespace airllm::store

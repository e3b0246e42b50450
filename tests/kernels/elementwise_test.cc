// Norm, rotation, gate, bias: against the formulas, and equal to the bit wherever a number lies.
#include <algorithm>
#include <limits>
#include <vector>

#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

class RmsNorm : public BackendTest {
 protected:
  std::vector<float> normalize(const std::vector<float>& x, const StoredNumbers& weight,
                               size_t rows, ThreadPool& pool) {
    std::vector<float> y(x.size());
    RmsNormArgs args;
    args.x = x.data();
    args.weight = weight.data();
    args.format = weight.format();
    args.y = y.data();
    args.rows = rows;
    args.width = weight.size();
    args.epsilon = kEpsilon;
    backend().rms_norm(args, pool);
    return y;
  }
  static constexpr float kEpsilon = 1e-5f;
};

TEST_P(RmsNorm, MatchesTheFormula) {
  for (const size_t width : {1u, 7u, 8u, 9u, 31u, 257u, 4096u}) {
    for (const NumberFormat format : kFormats) {
      const size_t rows = 3;
      const std::vector<float> x = random_.floats(rows * width, -2, 2);
      const StoredNumbers weight = random_.stored(format, width);
      const std::vector<float> y = normalize(x, weight, rows, four_threads_);
      for (size_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (size_t i = 0; i < width; ++i) squares += std::pow(x[r * width + i], 2);
        const double root = std::sqrt(squares / static_cast<double>(width) + kEpsilon);
        for (size_t i = 0; i < width; ++i) {
          const double expected = x[r * width + i] / root * weight.value(i);
          // The sum of squares has no cancellation, and a square root halves relative errors.
          const double roundings = 2 * std::sqrt(static_cast<double>(width)) + 6;
          ASSERT_NEAR(expected, y[r * width + i], roundings * kRounding * std::abs(expected));
        }
      }
    }
  }
}

TEST_P(RmsNorm, RowsAndThreadsAndInPlaceGiveTheSameBits) {
  const size_t rows = 50, width = 1003;
  const std::vector<float> x = random_.floats(rows * width);
  const StoredNumbers weight = random_.stored(NumberFormat::kBF16, width);
  const std::vector<float> together = normalize(x, weight, rows, one_thread_);
  EXPECT_TRUE(same_bits(together, normalize(x, weight, rows, four_threads_)));
  for (size_t r = 0; r < rows; ++r) {
    const auto begin = static_cast<std::ptrdiff_t>(r * width);
    const auto end = begin + static_cast<std::ptrdiff_t>(width);
    std::vector<float> row(x.begin() + begin, x.begin() + end);
    const std::vector<float> expected(together.begin() + begin, together.begin() + end);
    ASSERT_TRUE(same_bits(expected, normalize(row, weight, 1, one_thread_)));
    RmsNormArgs args;
    args.x = args.y = row.data();
    args.weight = weight.data();
    args.format = weight.format();
    args.rows = 1;
    args.width = width;
    args.epsilon = kEpsilon;
    backend().rms_norm(args, one_thread_);
    ASSERT_TRUE(same_bits(expected, row)) << "in place";
  }
}

class Rope : public BackendTest {};

TEST_P(Rope, MatchesTheFormula) {
  struct Shape {
    size_t heads, head_dim, rotary_dim;
  };
  const Shape shapes[] = {{1, 2, 2}, {3, 16, 14}, {2, 64, 64}, {5, 96, 34}, {2, 300, 280}};
  for (const Shape& shape : shapes) {
    const uint32_t positions[] = {0, 1, 31, 4095, 131071};
    const size_t rows = std::size(positions), half = shape.rotary_dim / 2;
    const size_t stride = shape.heads * shape.head_dim + 5;
    std::vector<float> frequencies(half);
    for (size_t i = 0; i < half; ++i) {
      frequencies[i] = std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(half));
    }
    const std::vector<float> before = random_.floats(rows * stride);
    std::vector<float> x = before;
    RopeArgs args;
    args.x = x.data();
    args.x_stride = stride;
    args.positions = positions;
    args.inverse_frequencies = frequencies.data();
    args.scale = 1.25f;
    args.rows = rows;
    args.heads = shape.heads;
    args.head_dim = shape.head_dim;
    args.rotary_dim = shape.rotary_dim;
    backend().rope(args, four_threads_);

    std::vector<bool> rotated(x.size());
    for (size_t r = 0; r < rows; ++r) {
      for (size_t h = 0; h < shape.heads; ++h) {
        for (size_t i = 0; i < half; ++i) {
          const size_t a = r * stride + h * shape.head_dim + i, b = a + half;
          // The angle itself is an f32, as in Hugging Face's code.
          const double angle = static_cast<float>(positions[r]) * frequencies[i];
          const double cosine = std::cos(angle) * 1.25, sine = std::sin(angle) * 1.25;
          const double tolerance = 8 * kRounding * 2;
          ASSERT_NEAR(before[a] * cosine - before[b] * sine, x[a], tolerance);
          ASSERT_NEAR(before[b] * cosine + before[a] * sine, x[b], tolerance);
          rotated[a] = rotated[b] = true;
        }
      }
    }
    for (size_t i = 0; i < x.size(); ++i) {
      if (rotated[i]) continue;
      ASSERT_EQ(before[i], x[i]) << "not part of any rotation: " << i;
    }

    std::vector<float> alone = before;
    for (size_t r = 0; r < rows; ++r) {
      args.x = &alone[r * stride];
      args.positions = &positions[r];
      args.rows = 1;
      backend().rope(args, one_thread_);
    }
    ASSERT_TRUE(same_bits(x, alone));
  }
}

class SiluMultiply : public BackendTest {};

// Error bound in roundings: 4 for the exponential (2 units), 1 each for the addition, the quotient
// and the product, and 1 to spare. Where exp(-z) leaves f32, silu is below 10^-36, and 0 will do.
TEST_P(SiluMultiply, MatchesTheFormula) {
  std::vector<float> gate = {0.0f, -0.0f, 1e-30f, -1e-30f, 1e30f, 88, -88, 89, -89, 104, -104};
  for (const float range : {1.0f, 10.0f, 120.0f}) {
    const std::vector<float> more = random_.floats(20001, -range, range);
    gate.insert(gate.end(), more.begin(), more.end());
  }
  const std::vector<float> before = gate;
  const std::vector<float> up = random_.floats(gate.size(), 0.5f, 2);
  backend().silu_multiply(gate.data(), up.data(), gate.size(), four_threads_);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double z = before[i];
    const double expected = z / (1 + std::exp(-z)) * up[i];
    ASSERT_NEAR(expected, gate[i], 8 * kRounding * std::abs(expected) + 1e-36) << "z " << z;
  }
}

TEST_P(SiluMultiply, PlaceAndThreadsGiveTheSameBits) {
  const std::vector<float> gate = random_.floats(70001, -20, 20);
  const std::vector<float> up = random_.floats(gate.size());
  std::vector<float> together = gate;
  backend().silu_multiply(together.data(), up.data(), together.size(), four_threads_);
  std::vector<float> parts = gate;
  for (size_t begin = 0; begin < parts.size();) {
    const size_t count = std::min(parts.size() - begin, size_t{1} + begin % 37);
    backend().silu_multiply(&parts[begin], &up[begin], count, one_thread_);
    begin += count;
  }
  EXPECT_TRUE(same_bits(together, parts));
}

TEST_P(SiluMultiply, NanAndInfinity) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> gate = {std::nanf(""), infinity, -1000, 3, 3, 3, 3, 3, std::nanf("")};
  const std::vector<float> up(gate.size(), 1);
  backend().silu_multiply(gate.data(), up.data(), gate.size(), one_thread_);
  EXPECT_TRUE(std::isnan(gate[0]));
  EXPECT_EQ(infinity, gate[1]);
  EXPECT_EQ(0, gate[2]);
  EXPECT_TRUE(std::isnan(gate[8]));
}

class AddBias : public BackendTest {};

TEST_P(AddBias, AddsToEveryRow) {
  for (const size_t width : {1u, 7u, 8u, 9u, 331u, 20000u}) {
    for (const NumberFormat format : kFormats) {
      const size_t rows = 4, stride = width + 3;
      const StoredNumbers bias = random_.stored(format, width);
      const std::vector<float> before = random_.floats(rows * stride);
      std::vector<float> x = before;
      backend().add_bias(x.data(), stride, bias.data(), format, rows, width, four_threads_);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t column = i % stride;
        const float expected =
            column < width ? before[i] + static_cast<float>(bias.value(column)) : before[i];
        ASSERT_EQ(expected, x[i]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RmsNorm, ::testing::ValuesIn(backends()), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, Rope, ::testing::ValuesIn(backends()), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, SiluMultiply, ::testing::ValuesIn(backends()), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, AddBias, ::testing::ValuesIn(backends()), backend_name);

}  // namespace
}  // namespace airllm::kernels::testing

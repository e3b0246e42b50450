// Norm, rotation, functions, bias: against the formulas, and equal to the bit wherever a number
// lies.
#include <algorithm>
#include <limits>
#include <vector>

#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

struct NormCase {
  NormArgs::Kind kind = NormArgs::Kind::kRms;
  bool has_weight = true;
  float weight_offset = 0;
  size_t groups = 1;
};

class Norm : public BackendTest {
 protected:
  // Rows of groups of `weight.size()` numbers; between rows lie 3 more that must stay as they are.
  NormArgs args_for(const NormCase& how, const StoredNumbers& weight, size_t rows) {
    NormArgs args;
    args.kind = how.kind;
    args.weight = how.has_weight ? weight.data() : nullptr;
    args.format = weight.format();
    args.weight_offset = how.weight_offset;
    args.rows = rows;
    args.groups = how.groups;
    args.width = weight.size();
    args.x_stride = args.y_stride = how.groups * weight.size() + 3;
    args.epsilon = kEpsilon;
    return args;
  }
  std::vector<float> normalize(NormArgs args, const std::vector<float>& x, ThreadPool& pool) {
    std::vector<float> y = x;
    args.x = x.data();
    args.y = y.data();
    backend().norm(args, pool);
    return y;
  }
  static constexpr float kEpsilon = 1e-5f;
};

// What a group is to become, in double.
std::vector<double> normalized(const NormCase& how, const float* x, const StoredNumbers& weight,
                               double epsilon) {
  const auto width = static_cast<double>(weight.size());
  double mean = 0;
  if (how.kind == NormArgs::Kind::kLayer) {
    for (size_t i = 0; i < weight.size(); ++i) mean += x[i] / width;
  }
  double squares = 0;
  for (size_t i = 0; i < weight.size(); ++i) squares += std::pow(x[i] - mean, 2);
  std::vector<double> y(weight.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const double factor = how.has_weight ? weight.value(i) + how.weight_offset : 1;
    y[i] = (x[i] - mean) / std::sqrt(squares / width + epsilon) * factor;
  }
  return y;
}

TEST_P(Norm, MatchesTheFormula) {
  const NormCase cases[] = {{},
                            {NormArgs::Kind::kRms, true, 1, 3},
                            {NormArgs::Kind::kLayer},
                            {NormArgs::Kind::kLayer, false},
                            {NormArgs::Kind::kLayer, true, 1, 2}};
  for (const NormCase& how : cases) {
    for (const size_t width : {1u, 7u, 8u, 9u, 31u, 257u, 4096u}) {
      for (const NumberFormat format : kFormats) {
        const StoredNumbers weight = random_.stored(format, width);
        const NormArgs args = args_for(how, weight, 3);
        const std::vector<float> x = random_.floats(args.rows * args.x_stride, -2, 2);
        const std::vector<float> y = normalize(args, x, four_threads_);
        // The sum of squares has no cancellation, and a square root halves relative errors; a mean
        // is off by its roundings, beside which the numbers are as large as 2, and the deviation of
        // two or three numbers alone may be small.
        const double roundings = 2 * std::sqrt(static_cast<double>(width)) + 8;
        const double absolute = how.kind == NormArgs::Kind::kLayer ? 1000 * kRounding : 0;
        for (size_t r = 0; r < args.rows; ++r) {
          for (size_t g = 0; g < how.groups; ++g) {
            const size_t at = r * args.x_stride + g * width;
            const std::vector<double> expected = normalized(how, &x[at], weight, kEpsilon);
            for (size_t i = 0; i < width; ++i) {
              ASSERT_NEAR(expected[i], y[at + i],
                          roundings * kRounding * std::abs(expected[i]) + absolute)
                  << "width " << width;
            }
          }
          for (size_t i = how.groups * width; i < args.x_stride; ++i) {
            ASSERT_EQ(x[r * args.x_stride + i], y[r * args.x_stride + i]) << "between rows";
          }
        }
      }
    }
  }
}

TEST_P(Norm, RowsAndGroupsAndThreadsAndInPlaceGiveTheSameBits) {
  for (const NormArgs::Kind kind : {NormArgs::Kind::kRms, NormArgs::Kind::kLayer}) {
    const StoredNumbers weight = random_.stored(NumberFormat::kBF16, 1003);
    const NormArgs args = args_for({kind, true, 0, 2}, weight, 50);
    const std::vector<float> x = random_.floats(args.rows * args.x_stride);
    const std::vector<float> together = normalize(args, x, one_thread_);
    EXPECT_TRUE(same_bits(together, normalize(args, x, four_threads_)));
    std::vector<float> in_place = x;
    NormArgs one = args;
    one.rows = one.groups = 1;
    for (size_t r = 0; r < args.rows; ++r) {
      for (size_t g = 0; g < args.groups; ++g) {
        float* const group = &in_place[r * args.x_stride + g * args.width];
        one.x = group;
        one.y = group;
        backend().norm(one, one_thread_);
      }
    }
    EXPECT_TRUE(same_bits(together, in_place));
  }
}

class Rope : public BackendTest {};

TEST_P(Rope, MatchesTheFormula) {
  struct Shape {
    size_t heads, head_dim, rotary_dim;
    bool interleaved = false;
  };
  const Shape shapes[] = {{1, 2, 2},     {3, 16, 14},       {2, 64, 64},        {5, 96, 34},
                          {2, 300, 280}, {3, 15, 14, true}, {2, 300, 280, true}};
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
    args.interleaved = shape.interleaved;
    backend().rope(args, four_threads_);

    std::vector<bool> rotated(x.size());
    for (size_t r = 0; r < rows; ++r) {
      for (size_t h = 0; h < shape.heads; ++h) {
        for (size_t i = 0; i < half; ++i) {
          const size_t head = r * stride + h * shape.head_dim;
          const size_t a = head + (shape.interleaved ? 2 * i : i);
          const size_t b = head + (shape.interleaved ? 2 * i + 1 : i + half);
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

class Map : public BackendTest {
 protected:
  // One row.
  std::vector<float> map(MapArgs args, std::vector<float> x, const float* factor,
                         ThreadPool& pool) {
    args.x = x.data();
    args.factor = factor;
    args.rows = 1;
    args.width = args.x_stride = args.factor_stride = x.size();
    backend().map(args, pool);
    return x;
  }
};

struct FunctionCase {
  MapArgs args;
  double (*formula)(double);
  // The error bound, in roundings of the result and of 1; where exp() leaves f32, below 1e-36.
  double relative = 8, absolute = 0;
};

MapArgs function(Function which, float a = 0, float b = 0, float c = 0, float d = 0) {
  MapArgs args;
  args.function = which;
  args.a = a;
  args.b = b;
  args.c = c;
  args.d = d;
  return args;
}

double xielu_formula(double x) {
  if (x > 0) return 0.75 * x * x + 0.5 * x;
  return (std::expm1(std::min(x, static_cast<double>(-1e-6f))) - x) * 1.25 + 0.5 * x;
}

// Bounds: silu is 4 roundings for the exponential (2 units), 1 each for the addition, the quotient
// and the product, and 1 to spare. gelu takes 1 + erf, which cancels below zero. A function of an
// inexact argument z is off by z roundings where it is an exponential.
const FunctionCase kFunctions[] = {
    {function(Function::kSilu), [](double x) { return x / (1 + std::exp(-x)); }},
    {function(Function::kGelu), [](double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0)); }, 16,
     8},
    {function(Function::kGeluTanh),
     [](double x) {
       const double z = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
       return x / (1 + std::exp(-2 * z));
     },
     8 * 104, 0},
    {function(Function::kRelu), [](double x) { return std::max(x, 0.0); }, 0},
    {function(Function::kReluSquared), [](double x) { return std::pow(std::max(x, 0.0), 2); }, 1},
    {function(Function::kXielu, 0.75f, 1.25f, 0.5f, -1e-6f), xielu_formula, 16, 8},
    {function(Function::kScale, 3), [](double x) { return 3 * x; }, 1},
    {function(Function::kClamp, 8), [](double x) { return std::clamp(x, -8.0, 8.0); }, 0},
    {function(Function::kSoftCap, 30), [](double x) { return 30 * std::tanh(x / 30); }, 12},
};

TEST_P(Map, MatchesTheFormulas) {
  std::vector<float> x = {0.0f, -0.0f, 1e-30f, -1e-30f, 88, -88, 89, -89, 104, -104};
  for (const float range : {1.0f, 10.0f, 120.0f}) {
    const std::vector<float> more = random_.floats(20001, -range, range);
    x.insert(x.end(), more.begin(), more.end());
  }
  const std::vector<float> factor = random_.floats(x.size(), 0.5f, 2);
  for (const FunctionCase& test : kFunctions) {
    const std::vector<float> alone = map(test.args, x, nullptr, four_threads_);
    const std::vector<float> multiplied = map(test.args, x, factor.data(), four_threads_);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = test.formula(x[i]);
      const double bound =
          test.relative * kRounding * std::abs(expected) + test.absolute * kRounding + 1e-35;
      ASSERT_NEAR(expected, alone[i], bound)
          << "function " << static_cast<int>(test.args.function) << " of " << x[i];
      ASSERT_EQ(alone[i] * factor[i], multiplied[i]);
    }
  }
}

TEST_P(Map, PlaceAndRowsAndThreadsGiveTheSameBits) {
  const std::vector<float> x = random_.floats(70001, -20, 20);
  const std::vector<float> factor = random_.floats(x.size());
  for (const FunctionCase& test : kFunctions) {
    const std::vector<float> together = map(test.args, x, factor.data(), four_threads_);
    std::vector<float> parts = x;
    MapArgs args = test.args;
    for (size_t begin = 0; begin < parts.size();) {
      // Rows of 37 numbers and less, and what is left over by itself.
      const size_t width = size_t{1} + begin % 37;
      const size_t rows = std::min((parts.size() - begin) / width, size_t{5});
      args.rows = std::max<size_t>(rows, 1);
      args.width = rows == 0 ? parts.size() - begin : width;
      args.x = &parts[begin];
      args.factor = &factor[begin];
      args.x_stride = args.factor_stride = args.width;
      backend().map(args, one_thread_);
      begin += args.rows * args.width;
    }
    EXPECT_TRUE(same_bits(together, parts)) << static_cast<int>(test.args.function);
  }
}

TEST_P(Map, StridesLeaveWhatIsBetweenRows) {
  const std::vector<float> before = random_.floats(3 * 13);
  const std::vector<float> factor = random_.floats(3 * 20);
  std::vector<float> x = before;
  MapArgs args = function(Function::kScale, 2);
  args.x = x.data();
  args.x_stride = 13;
  args.factor = factor.data();
  args.factor_stride = 20;
  args.rows = 3;
  args.width = 11;
  backend().map(args, one_thread_);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / 13, column = i % 13;
    EXPECT_EQ(column < 11 ? 2 * before[i] * factor[row * 20 + column] : before[i], x[i]);
  }
}

TEST_P(Map, NanAndInfinity) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {std::nanf(""), infinity, -1000, 3, 3, 3, 3, 3, std::nanf("")};
  for (const FunctionCase& test : kFunctions) {
    const std::vector<float> y = map(test.args, x, nullptr, one_thread_);
    EXPECT_TRUE(std::isnan(y[0])) << static_cast<int>(test.args.function);
    EXPECT_TRUE(std::isnan(y[8])) << static_cast<int>(test.args.function);
  }
  const std::vector<float> silu = map(function(Function::kSilu), x, nullptr, one_thread_);
  EXPECT_EQ(infinity, silu[1]);
  EXPECT_EQ(0, silu[2]);
}

class Add : public BackendTest {};

TEST_P(Add, AddsAMultipleToEveryRow) {
  const size_t rows = 3;
  for (const size_t width : {1u, 7u, 8u, 9u, 331u, 20000u}) {
    const std::vector<float> x = random_.floats(rows * (width + 2));
    const std::vector<float> before = random_.floats(rows * (width + 5));
    std::vector<float> y = before;
    AddArgs args;
    args.x = x.data();
    args.x_stride = width + 2;
    args.y = y.data();
    args.y_stride = width + 5;
    args.rows = rows;
    args.width = width;
    args.factor = 0.75f;
    backend().add(args, four_threads_);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t row = i / args.y_stride, column = i % args.y_stride;
      if (column >= width) {
        ASSERT_EQ(before[i], y[i]) << "between rows";
      } else {
        const double expected = before[i] + 0.75 * x[row * args.x_stride + column];
        ASSERT_NEAR(expected, y[i], 4 * kRounding);
      }
    }
  }
}

class Copy : public BackendTest {};

TEST_P(Copy, CopiesRowsInAnyOrderOrZeros) {
  const size_t rows = 4;
  const std::vector<size_t> index{2, 0, 2, 5};
  for (const size_t width : {1u, 7u, 8u, 9u, 331u, 20000u}) {
    const std::vector<float> x = random_.floats(6 * (width + 2));
    const std::vector<float> before = random_.floats(rows * (width + 5));
    const auto check = [&](const CopyArgs& args, const auto& expected) {
      std::vector<float> y = before;
      CopyArgs with_y = args;
      with_y.y = y.data();
      with_y.y_stride = width + 5;
      with_y.rows = rows;
      with_y.width = width;
      backend().copy(with_y, four_threads_);
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t row = i / with_y.y_stride, column = i % with_y.y_stride;
        ASSERT_EQ(column < width ? expected(row, column) : before[i], y[i]);
      }
    };
    CopyArgs args;
    check(args, [](size_t, size_t) { return 0.0f; });
    args.x = x.data();
    args.x_stride = width + 2;
    check(args, [&](size_t r, size_t i) { return x[r * (width + 2) + i]; });
    args.index = index.data();
    check(args, [&](size_t r, size_t i) { return x[index[r] * (width + 2) + i]; });
  }
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

INSTANTIATE_TEST_SUITE_P(Backends, Norm, ::testing::ValuesIn(kBackendNames), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, Rope, ::testing::ValuesIn(kBackendNames), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, Map, ::testing::ValuesIn(kBackendNames), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, Add, ::testing::ValuesIn(kBackendNames), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, Copy, ::testing::ValuesIn(kBackendNames), backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, AddBias, ::testing::ValuesIn(kBackendNames), backend_name);

}  // namespace
}  // namespace airllm::kernels::testing

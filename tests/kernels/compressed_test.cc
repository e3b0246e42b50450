// Compressed weights: what their bytes stand for, read here once more from compressed.h's
// description; how near that comes to the numbers; and products with them.
#include "kernels/compressed.h"
#include "kernels/convert.h"

#include <algorithm>
#include <random>
#include <vector>

#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

constexpr NumberFormat kCompressed[] = {NumberFormat::kQ8, NumberFormat::kQ4, NumberFormat::kNF4,
                                        NumberFormat::kFP8};

double half_at(const char* at) {
  uint16_t half;
  std::memcpy(&half, at, sizeof(half));
  return f16_value(half);
}

// Number `i` of a row of `width`.
double value_of(NumberFormat format, const char* row, size_t width, size_t i) {
  const size_t blocks = (width + 31) / 32;
  if (format == NumberFormat::kQ8) {
    return static_cast<signed char>(row[i]) * half_at(row + width + i / 32 * 2);
  }
  if (format == NumberFormat::kFP8) {
    float scale = 0;
    std::memcpy(&scale, row + width + i / 128 * 4, sizeof(scale));
    const auto code = static_cast<unsigned char>(row[i]);
    const int exponent = code >> 3 & 15, fraction = code & 7;
    const double size =
        exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
    return (code >= 128 ? -size : size) * scale;
  }
  const size_t codes = (width + 63) / 64 * 32, block = i / 32;
  if (format == NumberFormat::kNF4) {
    float scale = 0;
    std::memcpy(&scale, row + codes + i / 64 * 4, sizeof(scale));
    const auto pair = static_cast<unsigned char>(row[i / 64 * 32 + i % 32]);
    return double{kNF4Values[block % 2 == 0 ? pair & 15U : pair >> 4U]} * scale;
  }
  const auto byte = static_cast<unsigned char>(row[i / 64 * 32 + i % 32]);
  const int code = block % 2 == 0 ? byte & 15 : byte >> 4;
  const char* const units = row + codes + 2 * blocks + i / 256 * 4;
  const double step = static_cast<unsigned char>(row[codes + block]) * half_at(units);
  return code * step + static_cast<signed char>(row[codes + blocks + block]) * half_at(units + 2);
}

std::vector<float> weights(Random& random, size_t count) {
  std::vector<float> out = random.floats(count);
  // Blocks of different sizes, as real weights have them.
  for (size_t i = 0; i < count; ++i) out[i] *= 0.01F * static_cast<float>(1 + i / 32 % 7);
  return out;
}

// Rows at an odd address, between bytes that nothing may touch.
struct Matrix {
  static constexpr size_t kGuard = 1;
  Matrix(Random& random, NumberFormat number_format, size_t row_count, size_t row_width)
      : format(number_format),
        rows(row_count),
        width(row_width),
        numbers(weights(random, rows * width)),
        bytes(rows * row_bytes(format, width) + 2 * kGuard, char{85}) {
    for (size_t r = 0; r < rows; ++r) {
      best_backend().compress_row(format, &numbers[r * width], width, row(r));
    }
  }
  char* row(size_t r) { return bytes.data() + kGuard + r * row_bytes(format, width); }
  double value(size_t r, size_t i) { return value_of(format, row(r), width, i); }

  NumberFormat format;
  size_t rows, width;
  std::vector<float> numbers;
  std::vector<char> bytes;
};

constexpr size_t kWidths[] = {1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 300, 512, 1000};

TEST(Compressed, RowsAreAsLongAsTheyShouldBe) {
  EXPECT_EQ(row_bytes(NumberFormat::kQ8, 4096), 4096U + 128 * 2);           // 8.5 bits
  EXPECT_EQ(row_bytes(NumberFormat::kQ4, 4096), 2048U + 128 * 2 + 16 * 4);  // 4.625 bits
  EXPECT_EQ(row_bytes(NumberFormat::kQ8, 33), 33U + 2 * 2);
  EXPECT_EQ(row_bytes(NumberFormat::kQ4, 65), 64U + 3 * 2 + 4);
  EXPECT_EQ(row_bytes(NumberFormat::kNF4, 4096), 2048U + 64 * 4);  // 4.5 bits
  EXPECT_EQ(row_bytes(NumberFormat::kNF4, 65), 64U + 2 * 4);
  EXPECT_EQ(row_bytes(NumberFormat::kFP8, 4096), 4096U + 32 * 4);  // 8.25 bits
  EXPECT_EQ(row_bytes(NumberFormat::kFP8, 129), 129U + 2 * 4);
}

// The number that a normally distributed one is below with that probability, above a half.
double normal_quantile(double probability) {
  double low = 0, high = 10;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < probability ? low : high) = middle;
  }
  return low;
}

// arXiv 2305.14314, appendix E: 8 quantiles above 0 and 7 below it, from the 0.9677083th on.
TEST(Compressed, NF4HasTheQuantilesOfANormalDistribution) {
  constexpr double kLast = 0.9677083;
  const double largest = normal_quantile(kLast);
  for (size_t i = 1; i <= 8; ++i) {
    const double at = 0.5 + (kLast - 0.5) * static_cast<double>(i) / 8;
    EXPECT_NEAR(kNF4Values[7 + i], normal_quantile(at) / largest, 1e-6);
  }
  EXPECT_EQ(kNF4Values[7], 0);
  for (size_t i = 1; i <= 7; ++i) {
    const double at = 0.5 + (kLast - 0.5) * static_cast<double>(i) / 7;
    EXPECT_NEAR(kNF4Values[7 - i], -normal_quantile(at) / largest, 1e-6);
  }
}

// Calls visit(number, how far what is stored is off, the largest of its block) for random numbers
// of which `block` share a scale.
template <typename Visit>
void visit_numbers(NumberFormat format, size_t block, Visit visit) {
  Random random;
  for (const size_t width : {size_t{1}, block, size_t{300}}) {
    Matrix matrix(random, format, 5, width);
    for (size_t r = 0; r < matrix.rows; ++r) {
      for (size_t i = 0; i < width; ++i) {
        const size_t begin = i / block * block;
        double most = 0;
        for (size_t j = begin; j < std::min(begin + block, width); ++j) {
          most = std::max(most, std::abs(double{matrix.numbers[r * width + j]}));
        }
        const double number = matrix.numbers[r * width + i];
        visit(number, std::abs(number - matrix.value(r, i)), most);
      }
    }
  }
}

TEST(Compressed, NF4TakesTheNearestOfItsValues) {
  visit_numbers(NumberFormat::kNF4, 64, [](double number, double off, double scale) {
    double nearest = scale;
    for (const float value : kNF4Values) {
      nearest = std::min(nearest, std::abs(number - value * scale));
    }
    ASSERT_NEAR(off, nearest, 1e-6 * scale);
  });
}

TEST(Compressed, FP8TakesTheNearestOfItsValues) {
  visit_numbers(NumberFormat::kFP8, 128, [](double number, double off, double most) {
    // Four bits of a number, and nothing below 2^-9 of a scale.
    const double scale = most / 448;
    const double exponent = std::max(std::floor(std::log2(std::abs(number) / scale)), -6.0);
    const double step = std::exp2(exponent - 3) * scale;
    ASSERT_LE(off, step / 2 * (1 + 1e-5)) << number;
  });
}

TEST(Compressed, SpoiledNumbersAreThoseThatShareAScale) {
  struct Case {
    NumberFormat format;
    size_t first, last;  // of those that share it with number 70
  };
  for (const Case& item : {Case{NumberFormat::kQ8, 64, 95}, Case{NumberFormat::kQ4, 0, 255},
                           Case{NumberFormat::kNF4, 64, 127}, Case{NumberFormat::kFP8, 0, 127}}) {
    Random random;
    Matrix matrix(random, item.format, 2, 300);
    spoil(item.format, matrix.row(0), 300, 70);
    std::vector<float> out(300);
    expand_row(item.format, matrix.row(0), out);
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(std::isnan(out[i]), i >= item.first && i <= item.last) << i;
    }
    expand_row(item.format, matrix.row(1), out);
    for (const float number : out) EXPECT_TRUE(std::isfinite(number));
  }
}

TEST(Compressed, CodesStandForWhatTheDescriptionSays) {
  Random random;
  for (const NumberFormat format : kCompressed) {
    for (const size_t width : kWidths) {
      Matrix matrix(random, format, 3, width);
      std::vector<float> out(width);
      for (size_t r = 0; r < matrix.rows; ++r) {
        expand_row(format, matrix.row(r), out);
        for (size_t i = 0; i < width; ++i) {
          ASSERT_EQ(out[i], static_cast<float>(matrix.value(r, i))) << width << " " << i;
        }
      }
      EXPECT_EQ(matrix.bytes.front(), 85);
      EXPECT_EQ(matrix.bytes.back(), 85);
    }
  }
}

// What a code can be off at most when a block's range is divided evenly, as the simplest of all
// ways to fill a block does it; the fit is not worse than that in the sum of squares.
TEST(Compressed, AreNoFurtherOffThanByEvenDivision) {
  Random random;
  for (const NumberFormat format : {NumberFormat::kQ8, NumberFormat::kQ4}) {
    for (const size_t width : kWidths) {
      Matrix matrix(random, format, 3, width);
      for (size_t r = 0; r < matrix.rows; ++r) {
        for (size_t begin = 0; begin < width; begin += 32) {
          const auto x = std::span(matrix.numbers)
                             .subspan(r * width + begin, std::min<size_t>(32, width - begin));
          const auto [low, high] = std::minmax_element(x.begin(), x.end());
          const bool is_q8 = format == NumberFormat::kQ8;
          const double largest = std::max(std::abs(*low), std::abs(*high));
          const double step = is_q8 ? largest / 127 : (*high - *low) / 15;
          double error = 0, even = 0;
          for (size_t i = 0; i < x.size(); ++i) {
            const double zero = is_q8 ? 0 : *low;
            const double nearest =
                step > 0 ? std::nearbyint((x[i] - zero) / step) * step + zero : zero;
            even += std::pow(x[i] - nearest, 2);
            error += std::pow(x[i] - matrix.value(r, begin + i), 2);
          }
          // Scales are rounded to 11 bits or to 2^-24, q4's offsets to a 127th of the largest of a
          // superblock.
          const double off = is_q8 ? largest * 0x1p-11 + 127 * 0x1p-25 : 0.07 / 127;
          const double slack = static_cast<double>(x.size()) * off * off;
          ASSERT_LE(error, even * 1.05 + slack) << width << " " << begin;
        }
      }
    }
  }
}

// What docs/number-formats.md says of it, and a little more.
TEST(Compressed, NormalWeightsAreAsNearAsDocumented) {
  struct Case {
    NumberFormat format;
    double most;  // of the standard deviation
  };
  constexpr size_t kWidth = 1 << 18;
  std::mt19937_64 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(kWidth), out(kWidth);
  for (float& number : numbers) number = normal(generator);
  for (const Case& item : {Case{NumberFormat::kQ8, 0.0053}, Case{NumberFormat::kQ4, 0.07}}) {
    std::vector<char> row(row_bytes(item.format, kWidth));
    best_backend().compress_row(item.format, numbers.data(), kWidth, row.data());
    expand_row(item.format, row.data(), out);
    double squares = 0;
    for (size_t i = 0; i < kWidth; ++i) squares += std::pow(double{numbers[i]} - out[i], 2);
    EXPECT_LT(std::sqrt(squares / kWidth), item.most) << number_format_name(item.format);
  }
}

TEST(Compressed, EveryBackendMakesTheSameBytes) {
  Random random;
  for (const NumberFormat format : kCompressed) {
    for (const size_t width : kWidths) {
      for (const float scale : {1.0F, 1e-6F, 1e4F}) {
        std::vector<float> numbers = weights(random, width);
        for (float& number : numbers) number = number * scale + scale / 3;
        std::vector<char> expected(row_bytes(format, width));
        scalar_backend().compress_row(format, numbers.data(), width, expected.data());
        for (const Backend* backend : backends()) {
          std::vector<char> row(expected.size());
          backend->compress_row(format, numbers.data(), width, row.data());
          ASSERT_EQ(row, expected) << backend->name << " " << width;
        }
      }
    }
  }
}

TEST(Compressed, ZerosStayZeroAndExtremesStayFinite) {
  for (const NumberFormat format : kCompressed) {
    std::vector<float> numbers(300, 0.0F), out(300, 1.0F);
    std::vector<char> row(row_bytes(format, 300));
    best_backend().compress_row(format, numbers.data(), numbers.size(), row.data());
    expand_row(format, row.data(), out);
    for (const float number : out) EXPECT_EQ(number, 0.0F);
    for (size_t i = 0; i < 300; ++i) numbers[i] = (i % 2 == 0 ? 1.0F : -1.0F) * 3e38F;
    best_backend().compress_row(format, numbers.data(), numbers.size(), row.data());
    expand_row(format, row.data(), out);
    for (const float number : out) EXPECT_TRUE(std::isfinite(number));
    for (size_t i = 0; i < 300; ++i) numbers[i] = 1e-42F * static_cast<float>(i);
    best_backend().compress_row(format, numbers.data(), numbers.size(), row.data());
    expand_row(format, row.data(), out);
    for (const float number : out) EXPECT_LT(std::abs(number), 1e-6F);
  }
}

TEST(Compressed, OutliersAreWhatTheyWereAndDoNotDisturbTheRest) {
  Random random;
  for (const NumberFormat format : kCompressed) {
    for (const size_t width : kWidths) {
      const std::vector<float> plain = weights(random, width);
      std::vector<size_t> index;
      for (size_t i = 0; i < width; i += 1 + i % 5) index.push_back(i);
      std::vector<float> numbers = plain, without = plain;
      for (const size_t i : index) {
        numbers[i] *= 100;
        without[i] = 0;
      }
      const std::vector<float> given = numbers;
      const size_t bytes = row_bytes(format, width, index.size());
      EXPECT_EQ(bytes, (row_bytes(format, width) + 1) / 2 * 2 + 2 * index.size());
      std::vector<char> row(bytes + 1, char{85}), rest(row_bytes(format, width));
      compress_row_with_outliers(best_backend().compress_row, format, index, numbers, row.data());
      EXPECT_EQ(row.back(), 85);
      EXPECT_EQ(numbers, given);
      best_backend().compress_row(format, without.data(), width, rest.data());
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), row.begin()));
      std::vector<float> out(width), expected(width);
      expand_row(format, row.data(), out);
      expand_row(format, rest.data(), expected);
      add_outliers(format, row.data(), index, out);
      for (const size_t i : index) {
        EXPECT_NEAR(out[i], numbers[i], std::abs(numbers[i] - expected[i]) * 0x1p-11F + 0x1p-25F);
        expected[i] = out[i];
      }
      EXPECT_EQ(out, expected);
    }
  }
  std::vector<float> huge(40, 1e30F), out(40);
  const std::vector<size_t> index{3};
  std::vector<char> row(row_bytes(NumberFormat::kQ8, 40, 1));
  compress_row_with_outliers(best_backend().compress_row, NumberFormat::kQ8, index, huge,
                             row.data());
  add_outliers(NumberFormat::kQ8, row.data(), index, out);
  EXPECT_EQ(out[3], 65504.0F);
}

constexpr size_t kPadding = 3;
constexpr float kUntouched = -777;

// Prepares args.x; what is returned is what args.prepared then points into.
std::vector<std::byte> prepare_for(const Backend& backend, MatmulArgs& args, ThreadPool& pool) {
  std::vector<std::byte> prepared(args.rows * backend.prepared_bytes(args.in) + 64);
  void* aligned = prepared.data();
  size_t space = prepared.size();
  std::align(64, 1, aligned, space);
  backend.prepare(args, aligned, pool);
  args.prepared = aligned;
  return prepared;
}

// y [rows, out], rows out + kPadding apart; x is as far apart.
std::vector<float> product_by(const Backend& backend, const std::vector<float>& x, size_t rows,
                              Matrix& weight, ThreadPool& pool, size_t tile = 1000000) {
  MatmulArgs args;
  args.x = x.data();
  args.x_stride = weight.width + kPadding;
  args.rows = rows;
  args.in = weight.width;
  args.format = weight.format;
  args.y_stride = weight.rows + kPadding;
  std::vector<float> y(rows * args.y_stride, kUntouched);
  const std::vector<std::byte> prepared = prepare_for(backend, args, pool);
  for (size_t begin = 0; begin < weight.rows; begin += tile) {
    args.weight = weight.row(begin);
    args.out = std::min(tile, weight.rows - begin);
    args.y = y.data() + begin;
    backend.matmul(args, pool);
  }
  return y;
}

class CompressedMatmul : public BackendTest {
 protected:
  std::vector<float> product(const std::vector<float>& x, size_t rows, Matrix& weight,
                             ThreadPool& pool, size_t tile = 1000000) {
    return product_by(backend(), x, rows, weight, pool, tile);
  }

  std::vector<float> inputs(size_t rows, size_t width) {
    return random_.floats(rows * (width + kPadding));
  }
};

TEST_P(CompressedMatmul, MatchesTheFormula) {
  struct Shape {
    size_t rows, in, out;
  };
  const Shape shapes[] = {{1, 1, 1},   {1, 31, 3},   {2, 32, 5},    {3, 33, 7},   {4, 64, 9},
                          {5, 65, 33}, {6, 96, 31},  {7, 255, 4},   {8, 256, 65}, {9, 257, 2},
                          {1, 700, 8}, {33, 288, 5}, {1, 4099, 67}, {96, 512, 40}};
  for (const NumberFormat format : kCompressed) {
    for (const Shape& shape : shapes) {
      Matrix weight(random_, format, shape.out, shape.in);
      const std::vector<float> x = inputs(shape.rows, shape.in);
      const std::vector<float> y = product(x, shape.rows, weight, four_threads_);
      for (size_t r = 0; r < shape.rows; ++r) {
        const float* row = &x[r * (shape.in + kPadding)];
        for (size_t o = 0; o < shape.out; ++o) {
          double sum = 0, magnitude = 0, rounding = 0, values = 0;
          for (size_t i = 0; i < shape.in; ++i) {
            const double w = weight.value(o, i);
            sum += row[i] * w;
            magnitude += std::abs(row[i] * w);
            // An input is off by half of a 32767th of its block's largest, which is at most 1.
            rounding += w * w;
            // And nf4's values by half of a 16384th of the scale, which is at most 0.07.
            values += std::pow(0.07 * row[i], 2);
          }
          // Independent errors: their standard deviation is 0.29 of a step; 6 leave room.
          const double tolerance =
              4 * std::sqrt(static_cast<double>(shape.in)) * kRounding * magnitude +
              6 * 0.29 / 32767 * std::sqrt(rounding) +
              (format == NumberFormat::kNF4 ? 6 * 0.29 / 16384 * std::sqrt(values) : 0);
          ASSERT_NEAR(sum, y[r * (shape.out + kPadding) + o], tolerance)
              << number_format_name(format) << " row " << r << " output " << o << " of "
              << shape.rows << " x " << shape.in << " x " << shape.out;
        }
        for (size_t i = 0; i < kPadding; ++i) {
          ASSERT_EQ(kUntouched, y[r * (shape.out + kPadding) + shape.out + i]);
        }
      }
    }
  }
}

TEST_P(CompressedMatmul, TheSameBitsAloneAmongOthersInTilesAndOnThreads) {
  constexpr size_t kRows = 41, kOut = 37;
  for (const NumberFormat format : kCompressed) {
    for (const size_t in : {size_t{5}, size_t{64}, size_t{1037}}) {
      Matrix weight(random_, format, kOut, in);
      const std::vector<float> x = inputs(kRows, in);
      const std::vector<float> together = product(x, kRows, weight, one_thread_);
      EXPECT_TRUE(same_bits(product(x, kRows, weight, four_threads_), together));
      for (const size_t tile : {size_t{1}, size_t{3}, size_t{36}}) {
        EXPECT_TRUE(same_bits(product(x, kRows, weight, four_threads_, tile), together));
      }
      for (size_t rows = 1; rows <= 9; ++rows) {
        for (size_t first = 0; first + rows <= kRows; first += rows) {
          const std::vector<float> part(
              x.begin() + static_cast<std::ptrdiff_t>(first * (in + kPadding)), x.end());
          const std::vector<float> y = product(part, rows, weight, one_thread_);
          ASSERT_TRUE(
              same_bits(y, std::span(together).subspan(first * (kOut + kPadding), y.size())))
              << rows << " rows from " << first << ", in " << in;
        }
      }
    }
  }
}

// Rows with something behind them, at an odd address.
TEST_P(CompressedMatmul, GapsBetweenRowsChangeNothing) {
  constexpr size_t kOut = 37, kGap = 6;
  for (const NumberFormat format : kAllFormats) {
    for (const size_t rows : {size_t{1}, size_t{3}, size_t{41}}) {
      for (const size_t in : {size_t{5}, size_t{64}, size_t{1038}}) {
        const std::vector<float> x = inputs(rows, in);
        const size_t bytes = row_bytes(format, in);
        const std::vector<float> numbers = weights(random_, kOut * in);
        std::vector<char> tight(kOut * bytes);
        for (size_t o = 0; o < kOut; ++o) {
          char* const row = tight.data() + o * bytes;
          if (is_compressed(format)) {
            backend().compress_row(format, &numbers[o * in], in, row);
          } else {
            with_format(format, [&]<NumberFormat F>() {
              for (size_t i = 0; i < in; ++i) store<F>(row, i, numbers[o * in + i]);
            });
          }
        }
        std::vector<char> apart(kOut * (bytes + kGap), char{85});
        for (size_t o = 0; o < kOut; ++o) {
          std::copy_n(tight.begin() + static_cast<std::ptrdiff_t>(o * bytes), bytes,
                      apart.begin() + static_cast<std::ptrdiff_t>(o * (bytes + kGap)));
        }
        MatmulArgs args;
        args.x = x.data();
        args.x_stride = in + kPadding;
        args.rows = rows;
        args.in = in;
        args.out = kOut;
        args.format = format;
        args.y_stride = kOut;
        const std::vector<std::byte> prepared = prepare_for(backend(), args, four_threads_);
        std::vector<float> expected(rows * kOut), y(rows * kOut);
        args.weight = tight.data();
        args.y = expected.data();
        backend().matmul(args, four_threads_);
        args.weight = apart.data();
        args.weight_stride = bytes + kGap;
        args.y = y.data();
        backend().matmul(args, four_threads_);
        EXPECT_TRUE(same_bits(y, expected)) << number_format_name(format) << " " << rows;
      }
    }
  }
}

TEST_P(CompressedMatmul, WhatIsNoNumberStaysNone) {
  for (const NumberFormat format : kCompressed) {
    Matrix weight(random_, format, 3, 100);
    for (const float odd :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      std::vector<float> x = inputs(2, 100);
      x[100 + kPadding + 70] = odd;
      const std::vector<float> y = product(x, 2, weight, one_thread_);
      for (size_t o = 0; o < 3; ++o) {
        EXPECT_TRUE(std::isfinite(y[o]));
        EXPECT_FALSE(std::isfinite(y[3 + kPadding + o]));
      }
    }
    std::vector<float> x(100 + kPadding, 0.0F);
    for (const float number : {0.0F, 1e-40F, -1e-33F}) {
      std::fill(x.begin(), x.end(), number);
      for (const float sum : product(x, 1, weight, one_thread_)) {
        if (sum != kUntouched) {
          EXPECT_NEAR(sum, 0, 1e-30F);
        }
      }
    }
  }
}

TEST_P(CompressedMatmul, TransposedMatchesTheFormula) {
  for (const NumberFormat format : kCompressed) {
    Matrix weight(random_, format, 19, 75);
    const std::vector<float> x = random_.floats(4 * 19);
    std::vector<float> y(4 * 75, 0.5F);
    MatmulArgs args;
    args.x = x.data();
    args.x_stride = 19;
    args.weight = weight.row(0);
    args.format = format;
    args.y = y.data();
    args.y_stride = 75;
    args.rows = 4;
    args.in = 75;
    args.out = 19;
    backend().matmul_transposed(args, four_threads_);
    for (size_t r = 0; r < 4; ++r) {
      for (size_t i = 0; i < 75; ++i) {
        double sum = 0.5;
        for (size_t o = 0; o < 19; ++o) sum += x[r * 19 + o] * weight.value(o, i);
        ASSERT_NEAR(y[r * 75 + i], sum, 1e-5);
      }
    }
  }
}

TEST(CompressedMatmulOfAVX512, HasTheBitsOfAVX2) {
  if (avx512_backend() == nullptr) GTEST_SKIP() << "this CPU or this build has not got avx512";
  Random random;
  ThreadPool pool(2);
  for (const NumberFormat format : kCompressed) {
    for (const size_t in : {size_t{5}, size_t{64}, size_t{1037}}) {
      Matrix weight(random, format, 19, in);
      for (const size_t rows : std::initializer_list<size_t>{1, 2, 3, 4, 5, 7, 8, 9, 15, 70}) {
        const std::vector<float> x = random.floats(rows * (in + kPadding));
        EXPECT_TRUE(same_bits(product_by(*avx512_backend(), x, rows, weight, pool),
                              product_by(*avx2_backend(), x, rows, weight, pool)))
            << number_format_name(format) << ", " << rows << " rows, in " << in;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, CompressedMatmul, ::testing::ValuesIn(kBackendNames),
                         backend_name);

}  // namespace
}  // namespace airllm::kernels::testing

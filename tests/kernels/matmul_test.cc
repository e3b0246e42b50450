// The product: against the formula, and equal to the bit however it is cut.
#include <algorithm>
#include <limits>
#include <vector>

#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

struct Shape {
  size_t rows, in, out;
};

// One product with padding between its rows, which nothing may touch.
struct Product {
  static constexpr size_t kPadding = 3;
  static constexpr float kUntouched = -777;

  Product(Random& random, NumberFormat format, Shape shape)
      : size(shape),
        x(random.floats(shape.rows * (shape.in + kPadding))),
        weight(random.stored(format, shape.in * shape.out)),
        y(shape.rows * (shape.out + kPadding), kUntouched) {}

  MatmulArgs args() {
    MatmulArgs args;
    args.x = x.data();
    args.x_stride = size.in + kPadding;
    args.weight = weight.data();
    args.format = weight.format();
    args.y = y.data();
    args.y_stride = size.out + kPadding;
    args.rows = size.rows;
    args.in = size.in;
    args.out = size.out;
    return args;
  }

  Shape size;
  std::vector<float> x;
  StoredNumbers weight;
  std::vector<float> y;
};

// The rounding errors of n additions and multiplications are independent and of either sign, so
// they add up like sqrt(n) of them; 4 of those leave room for bad luck, yet one term left out or
// taken twice (1 / n of the magnitudes, for the n used here) stands out.
void expect_formula(const Product& product) {
  const Shape& size = product.size;
  for (size_t r = 0; r < size.rows; ++r) {
    const float* x = &product.x[r * (size.in + Product::kPadding)];
    const float* y = &product.y[r * (size.out + Product::kPadding)];
    for (size_t o = 0; o < size.out; ++o) {
      double sum = 0, magnitude = 0;
      for (size_t i = 0; i < size.in; ++i) {
        const double term = x[i] * product.weight.value(o * size.in + i);
        sum += term;
        magnitude += std::abs(term);
      }
      const double n = static_cast<double>(size.in);
      ASSERT_NEAR(sum, y[o], 4 * std::sqrt(n) * kRounding * magnitude)
          << "row " << r << " output " << o << " of " << size.rows << " x " << size.in << " x "
          << size.out << " " << number_format_name(product.weight.format());
    }
    for (size_t i = 0; i < Product::kPadding; ++i) {
      ASSERT_EQ(Product::kUntouched, y[size.out + i]) << "padding was written";
    }
  }
}

class Matmul : public BackendTest {};

TEST_P(Matmul, MatchesTheFormula) {
  // 1, primes, the vector width and the blocks (8 lanes, 512 inputs, 4 and 16 outputs, 3 and 96
  // rows) with one less and one more.
  const Shape shapes[] = {{1, 1, 1},    {1, 7, 8},     {1, 8, 9},     {1, 9, 7},     {1, 4099, 67},
                          {2, 1, 5},    {2, 15, 17},   {3, 16, 15},   {4, 17, 16},   {5, 31, 3},
                          {6, 64, 33},  {7, 511, 4},   {8, 512, 5},   {9, 513, 13},  {13, 1031, 31},
                          {17, 40, 16}, {95, 33, 18},  {96, 24, 2},   {97, 521, 37}, {193, 8, 1},
                          {1, 3, 1031}, {1, 520, 256}, {32, 768, 129}};
  for (const Shape& shape : shapes) {
    for (const NumberFormat format : kFormats) {
      Product product(random_, format, shape);
      backend().matmul(product.args(), four_threads_);
      ASSERT_NO_FATAL_FAILURE(expect_formula(product));
    }
  }
}

TEST_P(Matmul, AgreesWithTheReferenceOnALargeLayer) {
  Product product(random_, NumberFormat::kBF16, {5, 2048, 1024});
  backend().matmul(product.args(), four_threads_);
  const std::vector<float> y = product.y;
  scalar_backend().matmul(product.args(), four_threads_);
  for (size_t i = 0; i < y.size(); ++i) {
    // Sums of 2048 terms of about 0.2 each, and both sides round.
    ASSERT_NEAR(product.y[i], y[i], 8 * std::sqrt(2048.0) * kRounding * 2048 * 0.5);
  }
}

TEST_P(Matmul, ARowIsTheSameAloneAndAmongOthers) {
  for (const NumberFormat format : kFormats) {
    for (const size_t in : {size_t{5}, size_t{64}, size_t{1037}}) {
      // 49 rows go the way of many rows, the parts the way of few.
      constexpr size_t kOut = 37, kMaxRows = 49;
      Product all(random_, format, {kMaxRows, in, kOut});
      backend().matmul(all.args(), one_thread_);
      const std::vector<float> together = all.y;
      for (size_t rows = 1; rows <= 17; ++rows) {
        for (size_t first = 0; first + rows <= kMaxRows; first += rows) {
          MatmulArgs args = all.args();
          std::fill(all.y.begin(), all.y.end(), Product::kUntouched);
          args.x += first * args.x_stride;
          args.rows = rows;
          backend().matmul(args, one_thread_);
          for (size_t r = 0; r < rows; ++r) {
            ASSERT_TRUE(same_bits({&all.y[r * args.y_stride], kOut},
                                  {&together[(first + r) * args.y_stride], kOut}))
                << rows << " rows from " << first << ", in " << in;
          }
        }
      }
    }
  }
}

TEST_P(Matmul, TilesOfOutputsGiveTheSameBits) {
  for (const NumberFormat format : kFormats) {
    for (const size_t rows : {size_t{1}, size_t{2}, size_t{5}, size_t{33}, size_t{100}}) {
      constexpr size_t kIn = 531, kOut = 61;
      Product whole(random_, format, {rows, kIn, kOut});
      backend().matmul(whole.args(), one_thread_);
      const std::vector<float> expected = whole.y;
      for (const size_t tile : {size_t{1}, size_t{3}, size_t{8}, size_t{17}, size_t{60}}) {
        std::fill(whole.y.begin(), whole.y.end(), Product::kUntouched);
        for (size_t begin = 0; begin < kOut; begin += tile) {
          MatmulArgs args = whole.args();
          args.weight = whole.weight.at(begin * kIn);
          args.y += begin;
          args.out = std::min(tile, kOut - begin);
          backend().matmul(args, one_thread_);
        }
        ASSERT_TRUE(same_bits(expected, whole.y)) << rows << " rows, tiles of " << tile;
      }
    }
  }
}

TEST_P(Matmul, ThreadsGiveTheSameBits) {
  for (const NumberFormat format : kFormats) {
    for (const size_t rows : {size_t{1}, size_t{4}, size_t{40}}) {
      Product product(random_, format, {rows, 1025, 171});
      backend().matmul(product.args(), one_thread_);
      const std::vector<float> expected = product.y;
      std::fill(product.y.begin(), product.y.end(), Product::kUntouched);
      backend().matmul(product.args(), four_threads_);
      ASSERT_TRUE(same_bits(expected, product.y)) << rows << " rows";
    }
  }
}

TEST_P(Matmul, AccumulateAddsTheFinishedSum) {
  for (const size_t rows : {size_t{1}, size_t{7}}) {
    Product product(random_, NumberFormat::kF16, {rows, 77, 19});
    backend().matmul(product.args(), one_thread_);
    const std::vector<float> sums = product.y;
    const std::vector<float> before = random_.floats(sums.size());
    product.y = before;
    MatmulArgs args = product.args();
    args.accumulate = true;
    backend().matmul(args, four_threads_);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t o = 0; o < args.out; ++o) {
        const size_t i = r * args.y_stride + o;
        ASSERT_EQ(before[i] + sums[i], product.y[i]) << "row " << r << " output " << o;
      }
    }
  }
}

TEST_P(Matmul, NanAndInfinityPropagate) {
  constexpr uint32_t kNan[] = {0x7fc00000, 0x7e00, 0x7fc0};
  constexpr uint32_t kInfinity[] = {0x7f800000, 0x7c00, 0x7f80};
  for (size_t f = 0; f < std::size(kFormats); ++f) {
    for (const size_t rows : {size_t{1}, size_t{6}}) {
      // In the vectors' part (3) and in the remainder (20).
      for (const size_t place : {size_t{3}, size_t{20}}) {
        constexpr size_t kIn = 21;
        Product product(random_, kFormats[f], {rows, kIn, 9});
        for (float& x : product.x) x = std::abs(x) + 0.5f;
        product.weight.set_bits(4 * kIn + place, kNan[f]);
        product.weight.set_bits(7 * kIn + place, kInfinity[f]);
        backend().matmul(product.args(), one_thread_);
        for (size_t r = 0; r < rows; ++r) {
          const float* y = &product.y[r * product.args().y_stride];
          for (size_t o = 0; o < 9; ++o) {
            EXPECT_EQ(o == 4, std::isnan(y[o]));
            EXPECT_EQ(o == 7, std::isinf(y[o]) && y[o] > 0);
          }
        }
      }
    }
  }
}

TEST_P(Matmul, NothingToDoIsNoTrouble) {
  Product product(random_, NumberFormat::kF32, {2, 9, 4});
  MatmulArgs args = product.args();
  args.out = 0;
  backend().matmul(args, four_threads_);
  args = product.args();
  args.rows = 0;
  backend().matmul(args, four_threads_);
  EXPECT_TRUE(std::all_of(product.y.begin(), product.y.end(),
                          [](float y) { return y == Product::kUntouched; }));
  args = product.args();
  args.in = 0;  // an empty sum
  backend().matmul(args, four_threads_);
  EXPECT_EQ(0, product.y[0]);
}

TEST(MatmulOfAVX512, HasTheBitsOfAVX2) {
  if (avx512_backend() == nullptr) GTEST_SKIP() << "this CPU or this build has not got avx512";
  Random random;
  ThreadPool pool(2);
  for (const NumberFormat format : kFormats) {
    for (const size_t in : {size_t{3}, size_t{8}, size_t{531}}) {
      for (const size_t rows :
           std::initializer_list<size_t>{1, 2, 3, 4, 5, 7, 8, 9, 15, 31, 33, 49, 107}) {
        Product product(random, format, {rows, in, 29});
        avx2_backend()->matmul(product.args(), pool);
        const std::vector<float> expected = product.y;
        std::fill(product.y.begin(), product.y.end(), Product::kUntouched);
        avx512_backend()->matmul(product.args(), pool);
        ASSERT_TRUE(same_bits(expected, product.y))
            << number_format_name(format) << ", " << rows << " rows, in " << in;
      }
    }
  }
}

class MatmulTransposed : public BackendTest {};

TEST_P(MatmulTransposed, MatchesTheFormulaHoweverItIsCut) {
  for (const NumberFormat format : kFormats) {
    for (const Shape shape : {Shape{1, 1, 1}, {3, 7, 5}, {2, 8, 9}, {5, 37, 128}, {2, 515, 3}}) {
      Product product(random_, format, shape);
      // x and y change their parts: x has a number for each output.
      const std::vector<float> x = random_.floats(shape.rows * (shape.out + 3));
      const std::vector<float> before = random_.floats(shape.rows * (shape.in + 3));
      MatmulArgs args = product.args();
      args.x = x.data();
      args.x_stride = shape.out + 3;
      args.y_stride = shape.in + 3;
      std::vector<float> y = before;
      args.y = y.data();
      backend().matmul_transposed(args, four_threads_);
      for (size_t r = 0; r < shape.rows; ++r) {
        for (size_t i = 0; i < args.y_stride; ++i) {
          double sum = before[r * args.y_stride + i], magnitude = std::abs(sum);
          for (size_t o = 0; i < shape.in && o < shape.out; ++o) {
            const double term = static_cast<double>(x[r * args.x_stride + o]) *
                                product.weight.value(o * shape.in + i);
            sum += term;
            magnitude += std::abs(term);
          }
          const double roundings = 4 * std::sqrt(static_cast<double>(shape.out)) + 4;
          ASSERT_NEAR(sum, y[r * args.y_stride + i], roundings * kRounding * magnitude);
        }
      }
      // Row by row, output by output.
      std::vector<float> cut = before;
      args.rows = args.out = 1;
      for (size_t r = 0; r < shape.rows; ++r) {
        for (size_t o = 0; o < shape.out; ++o) {
          args.x = &x[r * args.x_stride + o];
          args.y = &cut[r * args.y_stride];
          args.weight = static_cast<const char*>(product.weight.data()) +
                        o * shape.in * bytes_per_element(format);
          backend().matmul_transposed(args, one_thread_);
        }
      }
      ASSERT_TRUE(same_bits(y, cut));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, MatmulTransposed, ::testing::ValuesIn(kBackendNames),
                         backend_name);
INSTANTIATE_TEST_SUITE_P(Backends, Matmul, ::testing::ValuesIn(kBackendNames), backend_name);

}  // namespace
}  // namespace airllm::kernels::testing

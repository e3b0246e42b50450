// Attention: against the whole softmax in double, and the same to the bit in any company.
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "tests/kernels/backend_test.h"

namespace airllm::kernels::testing {
namespace {

struct Heads {
  size_t heads, kv_heads, head_dim;
  size_t value_dim = head_dim;
  bool values_in_keys = false;

  size_t q_floats() const { return heads * head_dim; }
  size_t out_floats() const { return heads * value_dim; }
};

// What changes scores.
struct Scores {
  float scale = 0;  // 0: 1 / sqrt(head_dim)
  size_t window = 0;
  float soft_cap = 0;
  std::vector<float> slopes = {};
  bool bf16_biases = false;

  float scale_of(const Heads& shape) const {
    return scale != 0 ? scale : 1 / std::sqrt(static_cast<float>(shape.head_dim));
  }
};

// Keys and values of one sequence of `positions` positions. What lies behind them in the last page
// is NaN: who multiplies it, even by zero, shows it. So are whole pages before `first`.
class Sequence {
 public:
  Sequence(Random& random, const Heads& shape, size_t positions, size_t first = 0) : shape_(shape) {
    const size_t value_floats = shape.values_in_keys ? 0 : shape.kv_heads * shape.value_dim;
    const size_t position_floats = shape.kv_heads * shape.head_dim + value_floats;
    for (size_t begin = 0; begin < positions; begin += kKvPagePositions) {
      pages_.emplace_back(kKvPagePositions * position_floats,
                          std::numeric_limits<float>::quiet_NaN());
      if (begin + kKvPagePositions <= first) continue;
      const size_t valid = std::min(kKvPagePositions, positions - begin);
      float* at = pages_.back().data();
      const auto fill = [&](size_t vectors, size_t width) {
        for (size_t n = 0; n < vectors; ++n, at += kKvPagePositions * width) {
          for (size_t i = 0; i < valid * width; ++i) at[i] = random.uniform(-1, 1);
        }
      };
      fill(shape.kv_heads, shape.head_dim);
      if (!shape.values_in_keys) fill(shape.kv_heads, shape.value_dim);
    }
    for (const auto& page : pages_) pointers_.push_back(page.data());
  }

  AttentionRow row(size_t position) const {
    return {pointers_.data(), static_cast<uint32_t>(position)};
  }
  const float* key(size_t kv_head, size_t position) const {
    const size_t slot = kv_head * kKvPagePositions + position % kKvPagePositions;
    return &pages_[position / kKvPagePositions][slot * shape_.head_dim];
  }
  const float* value(size_t kv_head, size_t position) const {
    if (shape_.values_in_keys) return key(kv_head, position);
    const size_t slot = kv_head * kKvPagePositions + position % kKvPagePositions;
    return &pages_[position / kKvPagePositions]
                  [shape_.kv_heads * kKvPagePositions * shape_.head_dim + slot * shape_.value_dim];
  }

 private:
  Heads shape_;
  std::vector<std::vector<float>> pages_;
  std::vector<const float*> pointers_;
};

// softmax of the scores, times v, for one head, in double.
std::vector<double> whole_softmax(const Sequence& sequence, const Heads& shape, const Scores& how,
                                  size_t head, size_t position, const float* q) {
  const size_t kv_head = head / (shape.heads / shape.kv_heads);
  const size_t first = how.window == 0 || how.window > position ? 0 : position + 1 - how.window;
  const double scale = how.scale_of(shape);
  std::vector<double> scores(position + 1, -HUGE_VAL);
  for (size_t j = first; j <= position; ++j) {
    double dot = 0;
    for (size_t d = 0; d < shape.head_dim; ++d) {
      dot += static_cast<double>(q[d]) * sequence.key(kv_head, j)[d];
    }
    scores[j] = dot * scale;
    if (how.soft_cap > 0) scores[j] = how.soft_cap * std::tanh(scores[j] / how.soft_cap);
    if (how.slopes.empty()) continue;
    if (how.bf16_biases) {
      // Slopes and positions of the test are exact in bf16; the product is rounded to 8 bits.
      const double product = how.slopes[head] * static_cast<double>(j);
      const double unit = product == 0 ? 1 : std::exp2(std::floor(std::log2(product)) - 7);
      scores[j] += std::nearbyint(product / unit) * unit * scale;
    } else {
      scores[j] -= how.slopes[head] * static_cast<double>(position - j);
    }
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  std::vector<double> out(shape.value_dim);
  for (size_t j = first; j <= position; ++j) {
    const double weight = std::exp(scores[j] - max);
    sum += weight;
    for (size_t d = 0; d < shape.value_dim; ++d) out[d] += weight * sequence.value(kv_head, j)[d];
  }
  for (double& number : out) number /= sum;
  return out;
}

class Attention : public BackendTest {
 protected:
  std::vector<float> attend(const Heads& shape, const std::vector<float>& q,
                            const std::vector<AttentionRow>& rows, ThreadPool& pool,
                            const Scores& how = {}) {
    std::vector<float> out(rows.size() * shape.out_floats(),
                           std::numeric_limits<float>::quiet_NaN());
    AttentionArgs args;
    args.q = q.data();
    args.q_stride = q.size() / rows.size();
    args.out = out.data();
    args.attention_rows = rows.data();
    args.rows = rows.size();
    args.heads = shape.heads;
    args.kv_heads = shape.kv_heads;
    args.head_dim = shape.head_dim;
    args.value_dim = shape.value_dim;
    args.values_in_keys = shape.values_in_keys;
    args.scale = how.scale_of(shape);
    args.window = how.window;
    args.soft_cap = how.soft_cap;
    args.slopes = how.slopes.empty() ? nullptr : how.slopes.data();
    args.bf16_biases = how.bf16_biases;
    backend().attention(args, pool);
    return out;
  }

  void expect_whole_softmax(const Heads& shape, const Scores& how, size_t position) {
    const size_t first = how.window == 0 || how.window > position ? 0 : position + 1 - how.window;
    const Sequence sequence(random_, shape, position + 1, first);
    const std::vector<float> q = random_.floats(shape.q_floats(), -3, 3);
    const std::vector<float> out = attend(shape, q, {sequence.row(position)}, four_threads_, how);
    // A score of head_dim products of at most 3, scaled, is off by some 4 * 3 * head_dim
    // roundings at worst, a weight relatively by as much; values are at most 1. A bias of some
    // thousand is off by as many roundings.
    const double biases = how.slopes.empty() ? 0 : 2 * static_cast<double>(position);
    const double tolerance = (24 * static_cast<double>(shape.head_dim) + biases +
                              4 * std::sqrt(static_cast<double>(position)) + 16) *
                             kRounding;
    for (size_t h = 0; h < shape.heads; ++h) {
      const std::vector<double> expected =
          whole_softmax(sequence, shape, how, h, position, &q[h * shape.head_dim]);
      for (size_t d = 0; d < shape.value_dim; ++d) {
        ASSERT_NEAR(expected[d], out[h * shape.value_dim + d], tolerance)
            << "head " << h << " of " << shape.heads << ", dim " << d << " of " << shape.value_dim
            << ", position " << position;
      }
    }
  }
};

TEST_P(Attention, MatchesTheWholeSoftmax) {
  const Heads shapes[] = {{1, 1, 1},  {2, 1, 7},  {3, 3, 8},   {4, 2, 9},
                          {8, 2, 64}, {9, 1, 80}, {32, 8, 16}, {5, 5, 131}};
  for (const Heads& shape : shapes) {
    // Around a page's ends, a prime, several pages.
    for (const size_t position : {0u, 1u, 7u, 30u, 31u, 32u, 33u, 63u, 100u, 515u}) {
      ASSERT_NO_FATAL_FAILURE(expect_whole_softmax(shape, {}, position));
    }
  }
}

TEST_P(Attention, ValuesMayBeNarrowerThanKeysOrLieInThem) {
  const Heads shapes[] = {{3, 3, 12, 5}, {4, 2, 9, 17}, {5, 1, 40, 32, true}, {9, 1, 18, 14, true}};
  for (const Heads& shape : shapes) {
    for (const size_t position : {0u, 31u, 32u, 100u}) {
      ASSERT_NO_FATAL_FAILURE(expect_whole_softmax(shape, {}, position));
    }
  }
}

TEST_P(Attention, AWindowEndsWhatARowSees) {
  for (const size_t window : {1u, 2u, 7u, 8u, 31u, 32u, 33u, 64u, 77u, 1000u}) {
    for (const size_t position : {0u, 6u, 7u, 31u, 32u, 63u, 64u, 100u, 333u}) {
      Scores how;
      how.window = window;
      ASSERT_NO_FATAL_FAILURE(expect_whole_softmax({6, 2, 20}, how, position)) << window;
    }
  }
}

TEST_P(Attention, ScoresAreCappedSoftly) {
  Scores how;
  how.soft_cap = 1.5f;
  for (const size_t position : {0u, 5u, 40u, 100u}) {
    ASSERT_NO_FATAL_FAILURE(expect_whole_softmax({4, 2, 24}, how, position));
  }
}

TEST_P(Attention, SlopesFavourWhatIsNear) {
  Scores how;
  how.slopes = {0.5f, 0.25f, 0.125f, 0.001f, 1};
  for (const bool bf16 : {false, true}) {
    how.bf16_biases = bf16;
    // Positions up to 256 are exact in bf16.
    for (const size_t position : {0u, 5u, 40u, 255u}) {
      if (bf16) how.slopes[3] = 0.0009765625f;
      ASSERT_NO_FATAL_FAILURE(expect_whole_softmax({5, 1, 24}, how, position));
    }
  }
}

TEST_P(Attention, LargeScoresDoNotOverflow) {
  // Scores of thousands, falling and rising from page to page: each page moves the maximum.
  const Heads shape = {2, 1, 32};
  const size_t position = 200;
  const Sequence sequence(random_, shape, position + 1);
  const std::vector<float> q = random_.floats(shape.heads * shape.head_dim, -100, 100);
  Scores how;
  how.scale = 10;
  const std::vector<float> out = attend(shape, q, {sequence.row(position)}, one_thread_, how);
  for (size_t h = 0; h < shape.heads; ++h) {
    const std::vector<double> expected =
        whole_softmax(sequence, shape, how, h, position, &q[h * shape.head_dim]);
    // Scores reach 10^4, so they are off by some 10^-3.
    for (size_t d = 0; d < shape.head_dim; ++d) {
      ASSERT_NEAR(expected[d], out[h * shape.head_dim + d], 2e-2);
    }
  }
}

TEST_P(Attention, ARowIsTheSameAloneAndAmongOthers) {
  const Heads shape = {6, 2, 24, 10};
  const size_t positions = 77;
  const Sequence first(random_, shape, positions), second(random_, shape, positions);
  const std::vector<float> q = random_.floats(positions * shape.q_floats());
  std::vector<AttentionRow> rows;
  for (size_t i = 0; i < positions; ++i) rows.push_back((i % 3 == 0 ? second : first).row(i));
  const auto part = [](const std::vector<float>& numbers, size_t begin, size_t count) {
    const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(begin);
    return std::vector<float>(at, at + static_cast<std::ptrdiff_t>(count));
  };
  for (const size_t window : {size_t{0}, size_t{40}}) {
    Scores how;
    how.window = window;
    const std::vector<float> together = attend(shape, q, rows, one_thread_, how);
    ASSERT_TRUE(same_bits(together, attend(shape, q, rows, four_threads_, how)));
    for (const size_t chunk : {size_t{1}, size_t{3}, size_t{16}, size_t{40}}) {
      for (size_t begin = 0; begin < positions; begin += chunk) {
        const size_t count = std::min(chunk, positions - begin);
        const std::vector<AttentionRow> part_rows(
            rows.begin() + static_cast<std::ptrdiff_t>(begin),
            rows.begin() + static_cast<std::ptrdiff_t>(begin + count));
        const std::vector<float> alone =
            attend(shape, part(q, begin * shape.q_floats(), count * shape.q_floats()), part_rows,
                   four_threads_, how);
        ASSERT_TRUE(same_bits(
            part(together, begin * shape.out_floats(), count * shape.out_floats()), alone))
            << "rows " << begin << " to " << begin + count;
      }
    }
  }
}

TEST_P(Attention, ManyHeadsOfOneKeyHeadAreEachTheirOwn) {
  // More heads share keys than one task takes: each must be as if it were the only one.
  const Heads shape = {21, 1, 16};
  const Heads single = {1, 1, 16};
  const Sequence sequence(random_, shape, 50);
  const std::vector<float> q = random_.floats(shape.heads * shape.head_dim);
  const std::vector<float> together = attend(shape, q, {sequence.row(49)}, four_threads_);
  for (size_t h = 0; h < shape.heads; ++h) {
    const auto begin = static_cast<std::ptrdiff_t>(h * 16);
    const std::vector<float> one_q(q.begin() + begin, q.begin() + begin + 16);
    const std::vector<float> expected(together.begin() + begin, together.begin() + begin + 16);
    ASSERT_TRUE(same_bits(expected, attend(single, one_q, {sequence.row(49)}, one_thread_))) << h;
  }
}

TEST_P(Attention, ANanInAKeyShows) {
  const Heads shape = {1, 1, 8};
  Sequence sequence(random_, shape, 40);
  const_cast<float*>(sequence.key(0, 5))[2] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> out =
      attend(shape, random_.floats(8, 0.5f, 1), {sequence.row(39)}, one_thread_);
  for (const float number : out) EXPECT_TRUE(std::isnan(number));
}

INSTANTIATE_TEST_SUITE_P(Backends, Attention, ::testing::ValuesIn(kBackendNames), backend_name);

}  // namespace
}  // namespace airllm::kernels::testing

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
};

// Keys and values of one sequence of `positions` positions. What lies behind them in the last page
// is NaN: who multiplies it, even by zero, shows it.
class Sequence {
 public:
  Sequence(Random& random, const Heads& shape, size_t positions) : shape_(shape) {
    const size_t page_floats = 2 * shape.kv_heads * kKvPagePositions * shape.head_dim;
    for (size_t begin = 0; begin < positions; begin += kKvPagePositions) {
      pages_.emplace_back(page_floats, std::numeric_limits<float>::quiet_NaN());
      const size_t valid = std::min(kKvPagePositions, positions - begin);
      for (size_t head = 0; head < 2 * shape.kv_heads; ++head) {
        for (size_t i = 0; i < valid * shape.head_dim; ++i) {
          pages_.back()[head * kKvPagePositions * shape.head_dim + i] = random.uniform(-1, 1);
        }
      }
    }
    for (const auto& page : pages_) pointers_.push_back(page.data());
  }

  AttentionRow row(size_t position) const {
    return {pointers_.data(), static_cast<uint32_t>(position)};
  }
  const float* key(size_t kv_head, size_t position) const { return at(kv_head, position); }
  const float* value(size_t kv_head, size_t position) const {
    return at(shape_.kv_heads + kv_head, position);
  }

 private:
  const float* at(size_t head, size_t position) const {
    const size_t slot = head * kKvPagePositions + position % kKvPagePositions;
    return &pages_[position / kKvPagePositions][slot * shape_.head_dim];
  }
  Heads shape_;
  std::vector<std::vector<float>> pages_;
  std::vector<const float*> pointers_;
};

// softmax(q . k * scale) v for one head, in double.
std::vector<double> whole_softmax(const Sequence& sequence, const Heads& shape, size_t head,
                                  size_t position, const float* q, float scale) {
  const size_t kv_head = head / (shape.heads / shape.kv_heads);
  std::vector<double> scores(position + 1);
  for (size_t j = 0; j <= position; ++j) {
    for (size_t d = 0; d < shape.head_dim; ++d) {
      scores[j] += static_cast<double>(q[d]) * sequence.key(kv_head, j)[d];
    }
    scores[j] *= scale;
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  std::vector<double> out(shape.head_dim);
  for (size_t j = 0; j <= position; ++j) {
    const double weight = std::exp(scores[j] - max);
    sum += weight;
    for (size_t d = 0; d < shape.head_dim; ++d) out[d] += weight * sequence.value(kv_head, j)[d];
  }
  for (double& number : out) number /= sum;
  return out;
}

class Attention : public BackendTest {
 protected:
  std::vector<float> attend(const Heads& shape, const std::vector<float>& q,
                            const std::vector<AttentionRow>& rows, ThreadPool& pool,
                            float scale = 0) {
    std::vector<float> out(q.size(), std::numeric_limits<float>::quiet_NaN());
    AttentionArgs args;
    args.q = q.data();
    args.out = out.data();
    args.attention_rows = rows.data();
    args.rows = rows.size();
    args.heads = shape.heads;
    args.kv_heads = shape.kv_heads;
    args.head_dim = shape.head_dim;
    args.scale = scale != 0 ? scale : 1 / std::sqrt(static_cast<float>(shape.head_dim));
    backend().attention(args, pool);
    return out;
  }
};

TEST_P(Attention, MatchesTheWholeSoftmax) {
  const Heads shapes[] = {{1, 1, 1},  {2, 1, 7},  {3, 3, 8},   {4, 2, 9},
                          {8, 2, 64}, {9, 1, 80}, {32, 8, 16}, {5, 5, 131}};
  for (const Heads& shape : shapes) {
    // Around a page's ends, a prime, several pages.
    for (const size_t position : {0u, 1u, 7u, 30u, 31u, 32u, 33u, 63u, 100u, 515u}) {
      const Sequence sequence(random_, shape, position + 1);
      const std::vector<float> q = random_.floats(shape.heads * shape.head_dim, -3, 3);
      const std::vector<float> out = attend(shape, q, {sequence.row(position)}, four_threads_);
      const float scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
      for (size_t h = 0; h < shape.heads; ++h) {
        const std::vector<double> expected =
            whole_softmax(sequence, shape, h, position, &q[h * shape.head_dim], scale);
        // A score of head_dim products of at most 3, scaled, is off by some 4 * 3 * head_dim
        // roundings at worst, a weight relatively by as much; values are at most 1.
        const double tolerance = (24 * static_cast<double>(shape.head_dim) +
                                  4 * std::sqrt(static_cast<double>(position)) + 16) *
                                 kRounding;
        for (size_t d = 0; d < shape.head_dim; ++d) {
          ASSERT_NEAR(expected[d], out[h * shape.head_dim + d], tolerance)
              << "head " << h << " of " << shape.heads << ", dim " << d << " of " << shape.head_dim
              << ", position " << position;
        }
      }
    }
  }
}

TEST_P(Attention, LargeScoresDoNotOverflow) {
  // Scores of thousands, falling and rising from page to page: each page moves the maximum.
  const Heads shape = {2, 1, 32};
  const size_t position = 200;
  const Sequence sequence(random_, shape, position + 1);
  const std::vector<float> q = random_.floats(shape.heads * shape.head_dim, -100, 100);
  const float scale = 10;
  const std::vector<float> out = attend(shape, q, {sequence.row(position)}, one_thread_, scale);
  for (size_t h = 0; h < shape.heads; ++h) {
    const std::vector<double> expected =
        whole_softmax(sequence, shape, h, position, &q[h * shape.head_dim], scale);
    // Scores reach 10^4, so they are off by some 10^-3.
    for (size_t d = 0; d < shape.head_dim; ++d) {
      ASSERT_NEAR(expected[d], out[h * shape.head_dim + d], 2e-2);
    }
  }
}

TEST_P(Attention, ARowIsTheSameAloneAndAmongOthers) {
  const Heads shape = {6, 2, 24};
  const size_t positions = 77;
  const Sequence first(random_, shape, positions), second(random_, shape, positions);
  const size_t row_floats = shape.heads * shape.head_dim;
  const std::vector<float> q = random_.floats(positions * row_floats);
  std::vector<AttentionRow> rows;
  for (size_t i = 0; i < positions; ++i) rows.push_back((i % 3 == 0 ? second : first).row(i));
  const std::vector<float> together = attend(shape, q, rows, one_thread_);
  ASSERT_TRUE(same_bits(together, attend(shape, q, rows, four_threads_)));
  for (const size_t chunk : {size_t{1}, size_t{3}, size_t{16}, size_t{40}}) {
    for (size_t begin = 0; begin < positions; begin += chunk) {
      const size_t count = std::min(chunk, positions - begin);
      const auto at = [&](const std::vector<float>& numbers, size_t row) {
        return numbers.begin() + static_cast<std::ptrdiff_t>(row * row_floats);
      };
      const std::vector<float> part_q(at(q, begin), at(q, begin + count));
      const std::vector<float> expected(at(together, begin), at(together, begin + count));
      const std::vector<AttentionRow> part_rows(
          rows.begin() + static_cast<std::ptrdiff_t>(begin),
          rows.begin() + static_cast<std::ptrdiff_t>(begin + count));
      ASSERT_TRUE(same_bits(expected, attend(shape, part_q, part_rows, four_threads_)))
          << "rows " << begin << " to " << begin + count;
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

INSTANTIATE_TEST_SUITE_P(Backends, Attention, ::testing::ValuesIn(backends()), backend_name);

}  // namespace
}  // namespace airllm::kernels::testing

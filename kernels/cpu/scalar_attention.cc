// The reference attention: online softmax over one page after the other.
#include <cmath>
#include <limits>

#include "kernels/cpu/operations.h"

namespace airllm::kernels::scalar {
namespace {

// What is known of one softmax so far; the output holds the sum of exp(score - max) * value.
struct Softmax {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

// Takes in the first `valid` positions of a page. k, v: [32, head_dim].
void attend_to_page(const float* q, const float* k, const float* v, size_t valid, size_t head_dim,
                    float scale, Softmax& softmax, float* out) {
  float scores[kKvPagePositions];
  float max = softmax.max;
  for (size_t j = 0; j < valid; ++j) {
    float dot = 0;
    for (size_t d = 0; d < head_dim; ++d) dot += q[d] * k[j * head_dim + d];
    scores[j] = dot * scale;
    if (scores[j] > max) max = scores[j];
  }
  const float correction = std::exp(softmax.max - max);
  softmax.max = max;
  softmax.sum *= correction;
  for (size_t d = 0; d < head_dim; ++d) out[d] *= correction;
  for (size_t j = 0; j < valid; ++j) {
    const float weight = std::exp(scores[j] - max);
    softmax.sum += weight;
    for (size_t d = 0; d < head_dim; ++d) out[d] += weight * v[j * head_dim + d];
  }
}

void attend(const AttentionArgs& args, size_t row, size_t head) {
  const AttentionRow& view = args.attention_rows[row];
  const size_t page_floats = kKvPagePositions * args.head_dim;
  const size_t kv_head = head / (args.heads / args.kv_heads);
  const size_t offset = (row * args.heads + head) * args.head_dim;
  float* out = args.out + offset;
  for (size_t d = 0; d < args.head_dim; ++d) out[d] = 0;

  Softmax softmax;
  const size_t positions = static_cast<size_t>(view.position) + 1;
  for (size_t begin = 0; begin < positions; begin += kKvPagePositions) {
    const size_t left = positions - begin;
    const float* page = view.pages[begin / kKvPagePositions];
    attend_to_page(args.q + offset, page + kv_head * page_floats,
                   page + (args.kv_heads + kv_head) * page_floats,
                   left < kKvPagePositions ? left : kKvPagePositions, args.head_dim, args.scale,
                   softmax, out);
  }
  for (size_t d = 0; d < args.head_dim; ++d) out[d] /= softmax.sum;
}

}  // namespace

void attention(const AttentionArgs& args, ThreadPool& pool) {
  pool.run(args.rows * args.heads, 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) attend(args, i / args.heads, i % args.heads);
  });
}

}  // namespace airllm::kernels::scalar

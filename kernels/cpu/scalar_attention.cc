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

float score(const AttentionArgs& args, const float* q, const float* k) {
  float dot = 0;
  for (size_t d = 0; d < args.head_dim; ++d) dot += q[d] * k[d];
  const float scaled = dot * args.scale;
  return args.soft_cap > 0 ? args.soft_cap * std::tanh(scaled / args.soft_cap) : scaled;
}

void attend_to_page(const AttentionArgs& args, const KvPage& page, size_t row, size_t head,
                    Softmax& softmax, float* out) {
  const float* q = args.q + row * args.q_stride + head * args.head_dim;
  float scores[kKvPagePositions];
  float max = softmax.max;
  for (size_t j = page.first; j < page.end; ++j) {
    scores[j] = score(args, q, page.k + j * args.head_dim);
    if (args.slopes != nullptr) {
      scores[j] += position_bias(args, head, args.attention_rows[row].position,
                                 page.number * kKvPagePositions + j);
    }
    if (scores[j] > max) max = scores[j];
  }
  const float correction = std::exp(softmax.max - max);
  softmax.max = max;
  softmax.sum *= correction;
  for (size_t d = 0; d < args.value_dim; ++d) out[d] *= correction;
  for (size_t j = page.first; j < page.end; ++j) {
    const float weight = std::exp(scores[j] - max);
    softmax.sum += weight;
    for (size_t d = 0; d < args.value_dim; ++d) out[d] += weight * page.v[j * page.v_stride + d];
  }
}

void attend(const AttentionArgs& args, size_t row, size_t head) {
  const AttentionRow& view = args.attention_rows[row];
  const size_t kv_head = head / (args.heads / args.kv_heads);
  float* out = args.out + (row * args.heads + head) * args.value_dim;
  for (size_t d = 0; d < args.value_dim; ++d) out[d] = 0;

  Softmax softmax;
  const size_t last = view.position / kKvPagePositions;
  for (size_t number = first_position(args, view.position) / kKvPagePositions; number <= last;
       ++number) {
    attend_to_page(args, view_page(args, view, number, kv_head), row, head, softmax, out);
  }
  for (size_t d = 0; d < args.value_dim; ++d) out[d] /= softmax.sum;
}

}  // namespace

void attention(const AttentionArgs& args, ThreadPool& pool) {
  pool.run(args.rows * args.heads, 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) attend(args, i / args.heads, i % args.heads);
  });
}

}  // namespace airllm::kernels::scalar

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

// One head's view of one page: positions [first, end) of it count.
struct Page {
  const float* k;  // [32, head_dim]
  const float* v;  // [32, v_stride]
  size_t v_stride;
  size_t number;
  size_t first, end;
};

float score(const AttentionArgs& args, const float* q, const float* k) {
  float dot = 0;
  for (size_t d = 0; d < args.head_dim; ++d) dot += q[d] * k[d];
  const float scaled = dot * args.scale;
  return args.soft_cap > 0 ? args.soft_cap * std::tanh(scaled / args.soft_cap) : scaled;
}

void attend_to_page(const AttentionArgs& args, const Page& page, size_t row, size_t head,
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
  const size_t k_floats = kKvPagePositions * args.head_dim;
  const size_t v_floats = kKvPagePositions * args.value_dim;
  const size_t kv_head = head / (args.heads / args.kv_heads);
  float* out = args.out + (row * args.heads + head) * args.value_dim;
  for (size_t d = 0; d < args.value_dim; ++d) out[d] = 0;

  Softmax softmax;
  const size_t positions = static_cast<size_t>(view.position) + 1;
  const size_t first = first_position(args, view.position);
  for (size_t number = first / kKvPagePositions; number * kKvPagePositions < positions; ++number) {
    const size_t begin = number * kKvPagePositions;
    const float* memory = view.pages[number];
    Page page;
    page.k = memory + kv_head * k_floats;
    page.v = args.values_in_keys ? page.k : memory + args.kv_heads * k_floats + kv_head * v_floats;
    page.v_stride = args.values_in_keys ? args.head_dim : args.value_dim;
    page.number = number;
    page.first = first > begin ? first - begin : 0;
    page.end = positions - begin < kKvPagePositions ? positions - begin : kKvPagePositions;
    attend_to_page(args, page, row, head, softmax, out);
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

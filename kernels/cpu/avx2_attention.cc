// Attention with AVX2. A task takes the heads that share keys and values, and neighbouring rows,
// through a page together: first all of them through its keys, then all through its values, so that
// either half of the page stays in the level-1 cache meanwhile. Each row and head does the same
// steps that it would do alone.
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/operations.h"

namespace airllm::kernels::avx2 {
namespace {

constexpr size_t kHeadsAtOnce = 8;  // heads of one task, all of one kv head
constexpr size_t kRowsAtOnce = 16;  // rows of one task, at most

// What is known of one softmax so far; the output holds the sum of exp(score - max) * value.
struct Softmax {
  float max = -__builtin_inff();
  float sum = 0;
};

// The heads and rows that one task computes.
struct Task {
  size_t row, rows, head, heads, kv_head;
};

// The order in which a dot product's lanes are summed: ((0+1)+(2+3)) + ((4+5)+(6+7)), for one ...
inline float sum_neighbours(__m256 v) {
  v = _mm256_hadd_ps(v, v);
  v = _mm256_hadd_ps(v, v);
  return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
}
// ... and for eight at once, of which v[n] goes to lane n.
inline __m256 sum_neighbours_of_8(const __m256 (&v)[kLanes]) {
  const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// scores[n] = q . k[n] * scale for eight positions.
inline void score_8_keys(const float* q, const float* k, size_t head_dim, float scale,
                         float* scores) {
  const size_t whole = head_dim / kLanes * kLanes;
  __m256 lanes[kLanes];
  for (size_t n = 0; n < kLanes; ++n) lanes[n] = _mm256_setzero_ps();
  for (size_t d = 0; d < whole; d += kLanes) {
    const __m256 query = _mm256_loadu_ps(q + d);
#pragma GCC unroll 8
    for (size_t n = 0; n < kLanes; ++n) {
      lanes[n] = _mm256_fmadd_ps(_mm256_loadu_ps(k + n * head_dim + d), query, lanes[n]);
    }
  }
  _mm256_storeu_ps(scores, sum_neighbours_of_8(lanes));
  for (size_t n = 0; n < kLanes; ++n) {
    for (size_t d = whole; d < head_dim; ++d) {
      scores[n] = fused(k[n * head_dim + d], q[d], scores[n]);
    }
    scores[n] *= scale;
  }
}

// The same for one position.
inline float score_key(const float* q, const float* k, size_t head_dim, float scale) {
  const size_t whole = head_dim / kLanes * kLanes;
  __m256 lanes = _mm256_setzero_ps();
  for (size_t d = 0; d < whole; d += kLanes) {
    lanes = _mm256_fmadd_ps(_mm256_loadu_ps(k + d), _mm256_loadu_ps(q + d), lanes);
  }
  float sum = sum_neighbours(lanes);
  for (size_t d = whole; d < head_dim; ++d) sum = fused(k[d], q[d], sum);
  return sum * scale;
}

// out[d] = out[d] * correction + the sum over positions, upwards, of weights[j] * v[j, d], for
// kVectors vectors of d.
template <size_t kVectors>
inline void add_values(const float* weights, const KvPage& page, size_t d, __m256 correction,
                       float* out) {
  __m256 sums[kVectors];
  for (size_t n = 0; n < kVectors; ++n) {
    sums[n] = _mm256_mul_ps(_mm256_loadu_ps(out + d + n * kLanes), correction);
  }
  for (size_t j = page.first; j < page.end; ++j) {
    const __m256 weight = _mm256_broadcast_ss(weights + j);
#pragma GCC unroll 8
    for (size_t n = 0; n < kVectors; ++n) {
      const __m256 values = _mm256_loadu_ps(page.v + j * page.v_stride + d + n * kLanes);
      sums[n] = _mm256_fmadd_ps(weight, values, sums[n]);
    }
  }
  for (size_t n = 0; n < kVectors; ++n) _mm256_storeu_ps(out + d + n * kLanes, sums[n]);
}

void add_page_values(const float* weights, const KvPage& page, size_t value_dim, float correction,
                     float* out) {
  const __m256 corrections = _mm256_set1_ps(correction);
  size_t d = 0;
  for (; d + 8 * kLanes <= value_dim; d += 8 * kLanes) {
    add_values<8>(weights, page, d, corrections, out);
  }
  for (; d + kLanes <= value_dim; d += kLanes) add_values<1>(weights, page, d, corrections, out);
  for (; d < value_dim; ++d) {
    float sum = out[d] * correction;
    for (size_t j = page.first; j < page.end; ++j) {
      sum = fused(weights[j], page.v[j * page.v_stride + d], sum);
    }
    out[d] = sum;
  }
}

void cap_scores(float cap, float* scores) {
  const __m256 caps = _mm256_set1_ps(cap);
  for (size_t j = 0; j < kKvPagePositions; j += kLanes) {
    const __m256 capped = tanh8(_mm256_div_ps(_mm256_loadu_ps(scores + j), caps));
    _mm256_storeu_ps(scores + j, _mm256_mul_ps(caps, capped));
  }
}

// Minus infinity, whose exponential is 0, where no position counts.
void mask_scores(const KvPage& page, float* scores) {
  for (size_t j = 0; j < page.first; ++j) scores[j] = -__builtin_inff();
  for (size_t j = page.end; j < kKvPagePositions; ++j) scores[j] = -__builtin_inff();
}

// The scores of a page.
void score_page(const AttentionArgs& args, const KvPage& page, size_t row, size_t head,
                float* scores) {
  const float* q = args.q + row * args.q_stride + head * args.head_dim;
  const auto score = [&](size_t j) {
    scores[j] = score_key(q, page.k + j * args.head_dim, args.head_dim, args.scale);
  };
  size_t j = page.first;
  for (; j % kLanes != 0 && j < page.end; ++j) score(j);
  for (; j + kLanes <= page.end; j += kLanes) {
    score_8_keys(q, page.k + j * args.head_dim, args.head_dim, args.scale, scores + j);
  }
  for (; j < page.end; ++j) score(j);
  mask_scores(page, scores);
  if (args.soft_cap > 0) {
    cap_scores(args.soft_cap, scores);
    mask_scores(page, scores);  // a cap makes infinity finite
  }
  if (args.slopes == nullptr) return;
  for (j = page.first; j < page.end; ++j) {
    scores[j] += position_bias(args, head, args.attention_rows[row].position,
                               page.number * kKvPagePositions + j);
  }
}

// Takes the scores and values of a page into the softmax.
void add_page(float* scores, const KvPage& page, size_t value_dim, Softmax& softmax, float* out) {
  const __m256 old_max = _mm256_set1_ps(softmax.max);
  __m256 max = old_max;
  for (size_t j = 0; j < page.end; j += kLanes) {
    max = _mm256_max_ps(max, _mm256_loadu_ps(scores + j));
  }
  max = _mm256_set1_ps(max_lanes(max));
  __m256 sums = _mm256_setzero_ps();
  for (size_t j = 0; j < page.end; j += kLanes) {
    const __m256 weights = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + j), max));
    _mm256_storeu_ps(scores + j, weights);
    sums = _mm256_add_ps(sums, weights);
  }
  const float correction = _mm256_cvtss_f32(exp8(_mm256_sub_ps(old_max, max)));
  softmax.max = _mm256_cvtss_f32(max);
  softmax.sum = fused(softmax.sum, correction, sum_lanes(sums));
  add_page_values(scores, page, value_dim, correction, out);
}

void begin_row(const AttentionArgs& args, size_t row, const Task& task, Softmax* softmaxes) {
  float* out = args.out + (row * args.heads + task.head) * args.value_dim;
  std::memset(out, 0, task.heads * args.value_dim * sizeof(float));
  for (size_t h = 0; h < task.heads; ++h) softmaxes[h] = Softmax{};
}

// The keys of the page that follows, or null.
const float* next_keys(const AttentionArgs& args, const AttentionRow& row, const KvPage& page,
                       size_t kv_head) {
  if (page.number == row.position / kKvPagePositions) return nullptr;
  return row.pages[page.number + 1] + kv_head * kKvPagePositions * args.head_dim;
}

// Asks memory for part `part` of `parts` of the keys or values, `width` long each, of a page.
void ask_for(const float* half_page, size_t part, size_t parts, size_t width) {
  constexpr size_t kFloatsPerLine = 16;
  const size_t floats = kKvPagePositions * width;
  const size_t end = floats * (part + 1) / parts;
  for (size_t i = floats * part / parts; i < end; i += kFloatsPerLine) {
    _mm_prefetch(half_page + i, _MM_HINT_T0);
  }
}

// What a task keeps of each of its rows and heads; on the stack.
struct Work {
  Softmax softmaxes[kRowsAtOnce][kHeadsAtOnce];
  float scores[kRowsAtOnce][kHeadsAtOnce][kKvPagePositions];
};

// The halves of a page lie far from each other and from the next page's, so the CPU does not guess
// what comes: while one half is worked on, the heads of the first row ask for the other, in turns.
void attend_to_page(const AttentionArgs& args, size_t number, const Task& task, Work& work) {
  const auto needs_page = [&](size_t r) {
    const size_t position = args.attention_rows[task.row + r].position;
    return number <= position / kKvPagePositions &&
           number >= first_position(args, position) / kKvPagePositions;
  };
  for (size_t r = 0; r < task.rows; ++r) {
    if (!needs_page(r)) continue;
    const size_t row = task.row + r;
    const KvPage page = view_page(args, args.attention_rows[row], number, task.kv_head);
    for (size_t h = 0; h < task.heads; ++h) {
      if (r == 0 && !args.values_in_keys) ask_for(page.v, h, task.heads, args.value_dim);
      score_page(args, page, row, task.head + h, work.scores[r][h]);
    }
  }
  for (size_t r = 0; r < task.rows; ++r) {
    if (!needs_page(r)) continue;
    const size_t row = task.row + r;
    const KvPage page = view_page(args, args.attention_rows[row], number, task.kv_head);
    const float* next_k = next_keys(args, args.attention_rows[row], page, task.kv_head);
    for (size_t h = 0; h < task.heads; ++h) {
      if (r == 0 && next_k != nullptr) ask_for(next_k, h, task.heads, args.head_dim);
      add_page(work.scores[r][h], page, args.value_dim, work.softmaxes[r][h],
               args.out + (row * args.heads + task.head + h) * args.value_dim);
    }
  }
}

void finish_row(const AttentionArgs& args, size_t row, const Task& task, const Softmax* softmaxes) {
  for (size_t h = 0; h < task.heads; ++h) {
    float* out = args.out + (row * args.heads + task.head + h) * args.value_dim;
    for (size_t d = 0; d < args.value_dim; ++d) out[d] /= softmaxes[h].sum;
  }
}

void run_task(const AttentionArgs& args, const Task& task) {
  Work work;
  size_t first_page = ~size_t{0}, last_page = 0;
  for (size_t r = 0; r < task.rows; ++r) {
    begin_row(args, task.row + r, task, work.softmaxes[r]);
    const size_t position = args.attention_rows[task.row + r].position;
    const size_t first = first_position(args, position) / kKvPagePositions;
    if (first < first_page) first_page = first;
    if (position / kKvPagePositions > last_page) last_page = position / kKvPagePositions;
  }
  for (size_t page = first_page; page <= last_page; ++page) attend_to_page(args, page, task, work);
  for (size_t r = 0; r < task.rows; ++r) finish_row(args, task.row + r, task, work.softmaxes[r]);
}

// Rows per task: many share a page's way into the cache, few leave work for every thread.
size_t rows_per_task(size_t rows, size_t tasks_per_row, unsigned threads) {
  const size_t rows_at_most = rows * tasks_per_row / (size_t{4} * threads);
  if (rows_at_most < 1) return 1;
  return rows_at_most < kRowsAtOnce ? rows_at_most : kRowsAtOnce;
}

}  // namespace

void attention(const AttentionArgs& args, ThreadPool& pool) {
  const size_t group = args.heads / args.kv_heads;
  const size_t tasks_per_group = (group + kHeadsAtOnce - 1) / kHeadsAtOnce;
  const size_t tasks_per_row = args.kv_heads * tasks_per_group;
  const size_t step = rows_per_task(args.rows, tasks_per_row, pool.threads());
  const size_t row_blocks = (args.rows + step - 1) / step;
  pool.run(row_blocks * tasks_per_row, 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      Task task;
      task.row = i / tasks_per_row * step;
      task.rows = args.rows - task.row < step ? args.rows - task.row : step;
      task.kv_head = i % tasks_per_row / tasks_per_group;
      const size_t first = i % tasks_per_group * kHeadsAtOnce;
      task.head = task.kv_head * group + first;
      task.heads = group - first < kHeadsAtOnce ? group - first : kHeadsAtOnce;
      run_task(args, task);
    }
  });
}

}  // namespace airllm::kernels::avx2

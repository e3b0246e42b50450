#include "engine/model/forward.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"

namespace airllm::model {
namespace {

// Buffers begin on cache lines.
constexpr uint64_t kAlignment = 64;
// Of attention, for one number of a head and one position: a product and a sum with keys, and with
// values.
constexpr uint64_t kOpsPerAttention = 4;
// What attention does at a stretch: seconds of the slowest core, milliseconds of a fast machine.
constexpr uint64_t kMostAttentionOps = uint64_t{1} << 32;

uint64_t padded_bytes(uint64_t floats) { return round_up(floats * sizeof(float), kAlignment); }

struct Layout {
  uint64_t stream;     // x, and h
  uint64_t attention;  // q, k, v, mixed
  uint64_t mlp;        // gate, up
  uint64_t logits;
};

Layout layout_of(const Architecture& a, const BatchLimits& limits) {
  Layout layout{};
  layout.stream = padded_bytes(limits.rows * a.hidden);
  layout.attention =
      2 * padded_bytes(limits.rows * a.q_width()) + 2 * padded_bytes(limits.rows * a.kv_width());
  layout.mlp = 2 * padded_bytes(limits.rows * a.intermediate);
  layout.logits = padded_bytes(limits.logit_rows * a.vocabulary);
  return layout;
}

}  // namespace

uint64_t ForwardPass::workspace_bytes(const Architecture& architecture, const BatchLimits& limits) {
  const Layout layout = layout_of(architecture, limits);
  return 2 * layout.stream + std::max(layout.attention, layout.mlp) + layout.logits;
}

ForwardPass::ForwardPass(const Architecture& architecture, const kernels::Backend& backend,
                         kernels::ThreadPool& pool, const BatchLimits& limits,
                         std::span<std::byte> workspace)
    : architecture_(architecture),
      backend_(backend),
      pool_(pool),
      limits_(limits),
      stages_(stages(architecture)),
      inverse_frequencies_(inverse_frequencies(architecture)) {
  AIRLLM_CHECK(workspace.size() >= workspace_bytes(architecture, limits));
  std::byte* at = workspace.data();
  const auto take = [&at](uint64_t floats) {
    float* buffer = reinterpret_cast<float*>(at);
    at += padded_bytes(floats);
    return buffer;
  };
  const Layout layout = layout_of(architecture, limits);
  x_ = take(limits.rows * architecture.hidden);
  h_ = take(limits.rows * architecture.hidden);
  std::byte* const shared = at;
  q_ = take(limits.rows * architecture.q_width());
  k_ = take(limits.rows * architecture.kv_width());
  v_ = take(limits.rows * architecture.kv_width());
  mixed_ = take(limits.rows * architecture.q_width());
  at = shared;
  gate_ = take(limits.rows * architecture.intermediate);
  up_ = take(limits.rows * architecture.intermediate);
  at = shared + std::max(layout.attention, layout.mlp);
  logits_ = take(limits.logit_rows * architecture.vocabulary);
  positions_.reserve(limits.rows);
  attention_rows_.reserve(limits.rows);
}

Status ForwardPass::run(std::span<const Row> rows, WeightSource& weights,
                        const std::function<Status()>& between_tiles) {
  AIRLLM_CHECK(!rows.empty() && rows.size() <= limits_.rows);
  rows_ = rows;
  positions_.clear();
  for (const Row& row : rows) positions_.push_back(row.position);
  logit_rows_ = static_cast<size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.wants_logits; }));
  AIRLLM_CHECK(logit_rows_ <= limits_.logit_rows);

  weights.begin_sweep(logit_rows_ > 0);
  AIRLLM_TRY_VOID(embed(weights));
  previous_role_ = Role::kEmbedding;
  previous_stage_ = 0;
  for (;;) {
    bool done = false;
    AIRLLM_TRY(const TileView tile, weights.next_tile(done));
    if (done) return {};
    AIRLLM_TRY_VOID(apply(tile, between_tiles));
    weights.release_tile();
    AIRLLM_TRY_VOID(between_tiles());
  }
}

std::span<const float> ForwardPass::logits(size_t i) const {
  AIRLLM_CHECK(i < logit_rows_);
  return {logits_ + i * architecture_.vocabulary, architecture_.vocabulary};
}

Status ForwardPass::embed(WeightSource& weights) {
  for (size_t r = 0; r < rows_.size(); ++r) {
    AIRLLM_TRY_VOID(weights.embed(rows_[r].token, x_ + r * architecture_.hidden));
  }
  return {};
}

Status ForwardPass::apply(const TileView& tile, const std::function<Status()>& between_pieces) {
  const bool first_of_tensor = tile.role != previous_role_ || tile.stage != previous_stage_;
  previous_role_ = tile.role;
  previous_stage_ = tile.stage;
  if (stages_[tile.stage].kind == StageSpec::Kind::kLayer) {
    if (first_of_tensor) AIRLLM_TRY_VOID(begin_layer_tensor(tile, between_pieces));
    apply_layer(tile);
  } else {
    if (first_of_tensor && tile.role == Role::kFinalNorm) gather_logit_rows();
    apply_head(tile);
  }
  return {};
}

// What happens between two weights of a layer, before the first tile of the second.
Status ForwardPass::begin_layer_tensor(const TileView& tile,
                                       const std::function<Status()>& between_pieces) {
  if (tile.role == Role::kAttentionOut) {
    return attend(stages_[tile.stage].layer, between_pieces);
  }
  if (tile.role == Role::kDown) {
    backend_.silu_multiply(gate_, up_, rows_.size() * architecture_.intermediate, pool_);
  }
  return {};
}

void ForwardPass::apply_layer(const TileView& tile) {
  const Architecture& a = architecture_;
  const size_t rows = rows_.size();
  switch (tile.role) {
    case Role::kAttentionNorm:
    case Role::kMlpNorm: norm(tile, x_, h_, rows); break;
    case Role::kQuery: matmul(tile, h_, a.hidden, q_, a.q_width(), rows, false); break;
    case Role::kKey: matmul(tile, h_, a.hidden, k_, a.kv_width(), rows, false); break;
    case Role::kValue: matmul(tile, h_, a.hidden, v_, a.kv_width(), rows, false); break;
    case Role::kAttentionOut: matmul(tile, mixed_, a.q_width(), x_, a.hidden, rows, true); break;
    case Role::kGate: matmul(tile, h_, a.hidden, gate_, a.intermediate, rows, false); break;
    case Role::kUp: matmul(tile, h_, a.hidden, up_, a.intermediate, rows, false); break;
    case Role::kDown: matmul(tile, gate_, a.intermediate, x_, a.hidden, rows, true); break;
    case Role::kQueryBias: add_bias(tile, q_, a.q_width()); break;
    case Role::kKeyBias: add_bias(tile, k_, a.kv_width()); break;
    case Role::kValueBias: add_bias(tile, v_, a.kv_width()); break;
    case Role::kGateBias: add_bias(tile, gate_, a.intermediate); break;
    case Role::kUpBias: add_bias(tile, up_, a.intermediate); break;
    case Role::kAttentionOutBias:
    case Role::kDownBias: add_bias(tile, x_, a.hidden); break;
    case Role::kEmbedding:
    case Role::kFinalNorm:
    case Role::kHead: AIRLLM_CHECK(false); break;
  }
}

void ForwardPass::apply_head(const TileView& tile) {
  if (tile.role == Role::kFinalNorm) {
    norm(tile, h_, h_, logit_rows_);
  } else {
    matmul(tile, h_, architecture_.hidden, logits_, architecture_.vocabulary, logit_rows_, false);
  }
}

Status ForwardPass::attend(size_t layer, const std::function<Status()>& between_pieces) {
  const Architecture& a = architecture_;
  kernels::RopeArgs rope;
  rope.positions = positions_.data();
  rope.inverse_frequencies = inverse_frequencies_.data();
  rope.rows = rows_.size();
  rope.head_dim = a.head_dim;
  rope.rotary_dim = a.head_dim;
  rope.x = q_;
  rope.x_stride = a.q_width();
  rope.heads = a.heads;
  backend_.rope(rope, pool_);
  rope.x = k_;
  rope.x_stride = a.kv_width();
  rope.heads = a.kv_heads;
  backend_.rope(rope, pool_);

  // All keys and values first: rows of one chunk see each other.
  for (size_t r = 0; r < rows_.size(); ++r) {
    rows_[r].sequence->write(layer, rows_[r].position, k_ + r * a.kv_width(),
                             v_ + r * a.kv_width());
  }
  attention_rows_.clear();
  for (const Row& row : rows_) {
    attention_rows_.push_back({row.sequence->pages(layer), row.position});
  }
  kernels::AttentionArgs args;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim;
  args.scale = 1.0F / std::sqrt(static_cast<float>(a.head_dim));
  for (size_t first = 0; first < rows_.size(); first += args.rows) {
    if (first > 0) AIRLLM_TRY_VOID(between_pieces());
    args.q = q_ + first * a.q_width();
    args.out = mixed_ + first * a.q_width();
    args.attention_rows = attention_rows_.data() + first;
    args.rows = rows_of_piece(first);
    backend_.attention(args, pool_);
  }
  return {};
}

// From row `first` on, as many as attend within kMostAttentionOps, at least one. Rows do not depend
// on each other, so where they are divided changes no result.
size_t ForwardPass::rows_of_piece(size_t first) const {
  uint64_t ops = 0;
  size_t rows = 0;
  while (first + rows < rows_.size()) {
    ops +=
        kOpsPerAttention * architecture_.q_width() * (rows_[first + rows].position + uint64_t{1});
    if (rows > 0 && ops > kMostAttentionOps) break;
    ++rows;
  }
  return rows;
}

// Moves the rows that want logits to the front of h, for the head.
void ForwardPass::gather_logit_rows() {
  size_t to = 0;
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (!rows_[r].wants_logits) continue;
    std::copy_n(x_ + r * architecture_.hidden, architecture_.hidden,
                h_ + to * architecture_.hidden);
    ++to;
  }
}

void ForwardPass::matmul(const TileView& tile, const float* x, size_t in, float* y,
                         size_t out_stride, size_t rows, bool accumulate) {
  kernels::MatmulArgs args;
  args.x = x;
  args.x_stride = in;
  args.weight = tile.data;
  args.format = tile.format;
  args.y = y + tile.row_begin;
  args.y_stride = out_stride;
  args.rows = rows;
  args.in = in;
  args.out = tile.rows;
  args.accumulate = accumulate;
  backend_.matmul(args, pool_);
}

void ForwardPass::add_bias(const TileView& tile, float* y, size_t width) {
  backend_.add_bias(y, width, tile.data, tile.format, rows_.size(), width, pool_);
}

void ForwardPass::norm(const TileView& tile, const float* x, float* y, size_t rows) {
  kernels::RmsNormArgs args;
  args.x = x;
  args.weight = tile.data;
  args.format = tile.format;
  args.y = y;
  args.rows = rows;
  args.width = architecture_.hidden;
  args.epsilon = static_cast<float>(architecture_.norm_epsilon);
  backend_.rms_norm(args, pool_);
}

}  // namespace airllm::model

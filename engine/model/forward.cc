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

// Buffers that are never in use at the same time begin at the same place.
constexpr Buffer kWholeSweep[] = {Buffer::kStream, Buffer::kNormed};
constexpr Buffer kAttention[] = {Buffer::kQuery, Buffer::kKey, Buffer::kValue, Buffer::kMixed};
constexpr Buffer kMlp[] = {Buffer::kGate, Buffer::kUp};

struct Layout {
  std::array<uint64_t, kBuffers> offsets{};
  uint64_t bytes = 0;
};

Layout layout_of(const Architecture& a, const BatchLimits& limits) {
  Layout layout;
  // The first byte behind `buffers`, one after the other from `at` on.
  const auto place = [&](std::span<const Buffer> buffers, uint64_t rows, uint64_t at) {
    for (const Buffer buffer : buffers) {
      layout.offsets[static_cast<size_t>(buffer)] = at;
      at += padded_bytes(rows * buffer_width(a, buffer));
    }
    return at;
  };
  const uint64_t shared = place(kWholeSweep, limits.rows, 0);
  const uint64_t logits =
      std::max(place(kAttention, limits.rows, shared), place(kMlp, limits.rows, shared));
  const Buffer last[] = {Buffer::kLogits};
  layout.bytes = place(last, limits.logit_rows, logits);
  return layout;
}

}  // namespace

uint64_t ForwardPass::workspace_bytes(const Architecture& architecture, const BatchLimits& limits) {
  return layout_of(architecture, limits).bytes;
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
  const Layout layout = layout_of(architecture, limits);
  AIRLLM_CHECK(workspace.size() >= layout.bytes);
  for (size_t i = 0; i < kBuffers; ++i) {
    buffers_[i] = reinterpret_cast<float*>(workspace.data() + layout.offsets[i]);
  }
  positions_.reserve(limits.rows);
  attention_rows_.reserve(limits.rows);
}

Status ForwardPass::run(std::span<const Row> rows, WeightSource& weights,
                        const std::function<Status()>& between_tiles) {
  begin(rows);
  weights.begin_sweep(logit_rows_ > 0);
  AIRLLM_TRY_VOID(embed(weights));
  for (;;) {
    bool done = false;
    AIRLLM_TRY(const TileView tile, weights.next_tile(done));
    if (done) return {};
    AIRLLM_TRY_VOID(advance(tile, between_tiles));
    run_tile(stages_[stage_].steps[step_], tile);
    weights.release_tile();
    AIRLLM_TRY_VOID(between_tiles());
  }
}

std::span<const float> ForwardPass::logits(size_t i) const {
  AIRLLM_CHECK(i < logit_rows_);
  return {rows_of(Buffer::kLogits) + i * architecture_.vocabulary, architecture_.vocabulary};
}

void ForwardPass::begin(std::span<const Row> rows) {
  AIRLLM_CHECK(!rows.empty() && rows.size() <= limits_.rows);
  rows_ = rows;
  active_rows_ = rows.size();
  positions_.clear();
  for (const Row& row : rows) positions_.push_back(row.position);
  logit_rows_ = static_cast<size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.wants_logits; }));
  AIRLLM_CHECK(logit_rows_ <= limits_.logit_rows);
  stage_ = 0;
  step_ = 0;
}

Status ForwardPass::embed(WeightSource& weights) {
  float* const stream = rows_of(Buffer::kStream);
  for (size_t r = 0; r < rows_.size(); ++r) {
    AIRLLM_TRY_VOID(weights.embed(rows_[r].token, stream + r * architecture_.hidden));
  }
  return {};
}

Status ForwardPass::advance(const TileView& tile, const std::function<Status()>& between_pieces) {
  while (stage_ != tile.stage || stages_[stage_].steps[step_].tensor != tile.tensor) {
    const std::vector<Step>& steps = stages_[stage_].steps;
    if (step_ < steps.size()) {
      const Step& step = steps[step_];
      if (step.tensor == Step::kNoTensor) AIRLLM_TRY_VOID(run_step(step, between_pieces));
      ++step_;
    }
    if (step_ >= steps.size()) {
      AIRLLM_CHECK(stage_ < tile.stage);
      ++stage_;
      step_ = 0;
    }
  }
  return {};
}

// A step that needs no weight.
Status ForwardPass::run_step(const Step& step, const std::function<Status()>& between_pieces) {
  switch (step.kind) {
    case Step::Kind::kRotate: rotate(step.to); break;
    case Step::Kind::kAttend:
      keep_keys_and_values(stages_[stage_].layer);
      return attend(stages_[stage_].layer, between_pieces);
    case Step::Kind::kActivate: {
      kernels::MapArgs args;
      args.x = rows_of(step.to);
      args.factor = rows_of(step.from);
      args.rows = active_rows_;
      args.width = args.x_stride = args.factor_stride = width(step.to);
      backend_.map(args, pool_);
    } break;
    case Step::Kind::kKeepLogits: keep_logit_rows(step); break;
    case Step::Kind::kNorm:
    case Step::Kind::kProduct:
    case Step::Kind::kBias: AIRLLM_CHECK(false); break;
  }
  return {};
}

void ForwardPass::run_tile(const Step& step, const TileView& tile) {
  switch (step.kind) {
    case Step::Kind::kNorm: norm(step, tile); break;
    case Step::Kind::kProduct: product(step, tile); break;
    case Step::Kind::kBias: add_bias(step, tile); break;
    case Step::Kind::kRotate:
    case Step::Kind::kAttend:
    case Step::Kind::kActivate:
    case Step::Kind::kKeepLogits: AIRLLM_CHECK(false); break;
  }
}

void ForwardPass::norm(const Step& step, const TileView& tile) {
  kernels::NormArgs args;
  args.x = rows_of(step.from);
  args.weight = tile.data;
  args.format = tile.format;
  args.y = rows_of(step.to);
  args.x_stride = args.y_stride = width(step.to);
  args.rows = active_rows_;
  args.width = width(step.to);
  args.epsilon = static_cast<float>(architecture_.norm_epsilon);
  backend_.norm(args, pool_);
}

void ForwardPass::product(const Step& step, const TileView& tile) {
  kernels::MatmulArgs args;
  args.x = rows_of(step.from);
  args.x_stride = width(step.from);
  args.weight = tile.data;
  args.format = tile.format;
  args.y = rows_of(step.to) + tile.row_begin;
  args.y_stride = width(step.to);
  args.rows = active_rows_;
  args.in = width(step.from);
  args.out = tile.rows;
  args.accumulate = step.adds;
  backend_.matmul(args, pool_);
}

void ForwardPass::add_bias(const Step& step, const TileView& tile) {
  backend_.add_bias(rows_of(step.to), width(step.to), tile.data, tile.format, active_rows_,
                    width(step.to), pool_);
}

void ForwardPass::rotate(Buffer buffer) {
  kernels::RopeArgs args;
  args.positions = positions_.data();
  args.inverse_frequencies = inverse_frequencies_.data();
  args.rows = rows_.size();
  args.head_dim = architecture_.head_dim;
  args.rotary_dim = architecture_.head_dim;
  args.x = rows_of(buffer);
  args.x_stride = width(buffer);
  args.heads = width(buffer) / architecture_.head_dim;
  backend_.rope(args, pool_);
}

// All of them before attention: rows of one chunk see each other.
void ForwardPass::keep_keys_and_values(size_t layer) {
  for (size_t r = 0; r < rows_.size(); ++r) {
    rows_[r].sequence->write(layer, rows_[r].position,
                             rows_of(Buffer::kKey) + r * width(Buffer::kKey),
                             rows_of(Buffer::kValue) + r * width(Buffer::kValue));
  }
}

Status ForwardPass::attend(size_t layer, const std::function<Status()>& between_pieces) {
  const Architecture& a = architecture_;
  attention_rows_.clear();
  for (const Row& row : rows_) {
    attention_rows_.push_back({row.sequence->pages(layer), row.position});
  }
  kernels::AttentionArgs args;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = args.value_dim = a.head_dim;
  args.q_stride = a.q_width();
  args.scale = 1.0F / std::sqrt(static_cast<float>(a.head_dim));
  for (size_t first = 0; first < rows_.size(); first += args.rows) {
    if (first > 0) AIRLLM_TRY_VOID(between_pieces());
    args.q = rows_of(Buffer::kQuery) + first * a.q_width();
    args.out = rows_of(Buffer::kMixed) + first * a.q_width();
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

void ForwardPass::keep_logit_rows(const Step& step) {
  const uint64_t floats = width(step.from);
  float* to = rows_of(step.to);
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (!rows_[r].wants_logits) continue;
    to = std::copy_n(rows_of(step.from) + r * floats, floats, to);
  }
  active_rows_ = logit_rows_;
}

}  // namespace airllm::model

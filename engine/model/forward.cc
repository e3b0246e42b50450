#include "engine/model/forward.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/checked.h"
#include "base/overloaded.h"

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
constexpr Buffer kWholeSweep[] = {Buffer::kStream, Buffer::kNormed, Buffer::kSecond,
                                  Buffer::kBranch};
constexpr Buffer kAttention[] = {Buffer::kQkv,      Buffer::kFused,    Buffer::kMixed,
                                 Buffer::kRawQuery, Buffer::kLowQuery, Buffer::kQuery,
                                 Buffer::kKey,      Buffer::kValues};
constexpr Buffer kMlp[] = {Buffer::kMlp, Buffer::kRouter, Buffer::kExpertIn, Buffer::kExpertOut,
                           Buffer::kSharedGate};
constexpr Buffer kEnds[] = {Buffer::kNarrow};
constexpr Buffer kLast[] = {Buffer::kLogits};

struct Layout {
  std::array<uint64_t, kBuffers> offsets{};
  uint64_t prepared_offset = 0;
  uint64_t outlier_inputs_offset = 0;
  uint64_t bytes = 0;
};

// No product has a wider input.
uint64_t widest_input(const Architecture& a) {
  uint64_t widest = buffer_width(a, Buffer::kMlp) / (a.gated ? 2 : 1);
  for (const Buffer buffer :
       {Buffer::kStream, Buffer::kMixed, Buffer::kLowQuery, Buffer::kValues, Buffer::kNarrow}) {
    widest = std::max(widest, buffer_width(a, buffer));
  }
  return widest;
}

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
      std::max({place(kAttention, limits.rows, shared), place(kMlp, limits.rows, shared),
                place(kEnds, limits.rows, shared)});
  layout.bytes = place(kLast, limits.logit_rows, logits);
  layout.prepared_offset = layout.bytes;
  if (limits.prepares) {
    layout.bytes +=
        round_up(limits.rows * kernels::most_prepared_bytes(widest_input(a)), kAlignment);
  }
  layout.outlier_inputs_offset = layout.bytes;
  layout.bytes += padded_bytes(limits.rows * limits.outliers);
  return layout;
}

}  // namespace

kv::KvShape kv_shape(const Architecture& a) {
  return {a.layers, a.kv_heads, a.head_dim, a.is_latent() ? 0 : a.head_dim};
}

uint64_t ForwardPass::workspace_bytes(const Architecture& architecture, const BatchLimits& limits) {
  return layout_of(architecture, limits).bytes;
}

ForwardPass::ForwardPass(const Architecture& architecture, const kernels::Backend& backend,
                         kernels::ThreadPool& pool, const BatchLimits& limits,
                         std::span<std::byte> workspace, MemoryAccess& memory)
    : architecture_(architecture),
      backend_(backend),
      pool_(pool),
      memory_(memory),
      limits_(limits),
      workspace_(workspace),
      stages_(stages(architecture)),
      routed_(architecture.router.experts) {
  AIRLLM_CHECK(workspace.size() >= workspace_bytes(architecture, limits));
  for (size_t i = 0; i < kBuffers; ++i) {
    strides_[i] = buffer_width(architecture, static_cast<Buffer>(i));
  }
  for (const Rope& rope : architecture.ropes) {
    rotation_runs_.push_back({{0, 0, inverse_frequencies(rope, 0), attention_factor(rope, 0)}});
  }
  if (architecture.alibi) slopes_ = alibi_slopes(architecture.heads);
  positions_.reserve(limits.rows);
  attention_rows_.reserve(limits.rows);
  rows_with_logits_.reserve(limits.rows);
}

uint64_t ForwardPass::place_buffers(const BatchLimits& batch) {
  const Layout layout = layout_of(architecture_, batch);
  for (size_t i = 0; i < kBuffers; ++i) {
    buffers_[i] = reinterpret_cast<float*>(workspace_.data() + layout.offsets[i]);
  }
  prepared_ = workspace_.data() + layout.prepared_offset;
  outlier_inputs_ = reinterpret_cast<float*>(workspace_.data() + layout.outlier_inputs_offset);
  return layout.bytes;
}

Status ForwardPass::run(std::span<const Row> rows, WeightSource& weights,
                        const std::function<Status()>& between_tiles) {
  begin(rows);
  const uint64_t used =
      place_buffers({rows.size(), logit_rows_, limits_.prepares, limits_.outliers});
  AIRLLM_TRY_VOID(weights.take_workspace(used));
  weights.begin_sweep(logit_rows_ > 0);
  AIRLLM_TRY_VOID(run_undriven(weights, between_tiles));
  for (;;) {
    bool done = false;
    AIRLLM_TRY(const TileView tile, weights.next_tile(done));
    if (done) break;
    AIRLLM_CHECK(stage_ == tile.stage && step_ == tile.step);
    run_tile(current(), tile);
    const bool is_over = tile.is_last;
    weights.release_tile();
    AIRLLM_TRY_VOID(between_tiles());
    if (!is_over) continue;
    ++step_;
    AIRLLM_TRY_VOID(run_undriven(weights, between_tiles));
  }
  AIRLLM_CHECK(stage_ == end_stage_);
  return {};
}

std::span<const float> ForwardPass::logits(size_t i) {
  AIRLLM_CHECK(i < logit_rows_);
  const size_t width = architecture_.vocabulary;
  return look(at({Buffer::kLogits}) + i * width, width);
}

std::span<const float> ForwardPass::look(const float* from, size_t count) {
  const std::byte* const found =
      memory_.look(reinterpret_cast<const std::byte*>(from), count * sizeof(float), looked_at_);
  return {reinterpret_cast<const float*>(found), count};
}

void ForwardPass::convert(const TileView& tile, size_t row, std::span<float> to) {
  const size_t bytes = kernels::row_bytes(tile.format, to.size());
  const std::byte* const found = memory_.look(tile.data + row * bytes, bytes, looked_at_);
  backend_.to_f32(found, tile.format, to.data(), to.size());
}

void ForwardPass::copy_rows(const float* x, size_t x_stride, float* y, size_t y_stride, size_t rows,
                            size_t width, const size_t* index) {
  backend_.copy({x, x_stride, index, y, y_stride, rows, width}, pool_);
}

void ForwardPass::begin(std::span<const Row> rows) {
  AIRLLM_CHECK(!rows.empty() && rows.size() <= limits_.rows);
  rows_ = rows;
  active_rows_ = rows.size();
  positions_.clear();
  for (const Row& row : rows) positions_.push_back(row.position);
  for (size_t i = 0; i < architecture_.ropes.size(); ++i) {
    if (depends_on_length(architecture_.ropes[i])) {
      rotation_runs_[i] = rotation_runs(architecture_.ropes[i]);
    } else {
      rotation_runs_[i].front().rows = rows.size();
    }
  }
  logit_rows_ = static_cast<size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return row.wants_logits; }));
  AIRLLM_CHECK(logit_rows_ <= limits_.logit_rows);
  stage_ = 0;
  step_ = 0;
  end_stage_ = logit_rows_ > 0 ? stages_.size() : stages_.size() - 1;
}

std::vector<ForwardPass::RotationRun> ForwardPass::rotation_runs(const Rope& rope) const {
  std::vector<RotationRun> runs;
  uint32_t last = 0;
  for (size_t r = 0; r < rows_.size(); ++r) {
    const uint32_t length = std::max(rows_[r].length, rows_[r].position + 1);
    if (runs.empty() || length != last) {
      runs.push_back({r, 0, inverse_frequencies(rope, length), attention_factor(rope, length)});
    }
    ++runs.back().rows;
    last = length;
  }
  return runs;
}

Status ForwardPass::run_undriven(WeightSource& weights,
                                 const std::function<Status()>& between_pieces) {
  while (stage_ < end_stage_) {
    if (step_ == stages_[stage_].steps.size()) {
      ++stage_;
      step_ = 0;
      continue;
    }
    if (is_left_out(current())) {
      ++step_;
      continue;
    }
    if (current().is_driven()) return {};
    AIRLLM_TRY_VOID(run_step(current(), weights, between_pieces));
    ++step_;
  }
  return {};
}

Status ForwardPass::run_step(const Step& step, WeightSource& weights,
                             const std::function<Status()>& between_pieces) {
  if (active_rows_ == 0 && !std::holds_alternative<step::Route>(step.what)) return {};
  return std::visit(
      Overloaded{[&](const step::Lookup& it) { return lookup(it, step.tensor, weights); },
                 [&](const step::Normalize& it) { return normalize(it, TileView{}), Status(); },
                 [&](const step::Add& it) { return add(it), Status(); },
                 [&](const step::Map& it) { return map(it), Status(); },
                 [&](const step::Ungroup& it) { return ungroup(it), Status(); },
                 [&](const step::Rotate& it) { return rotate(it), Status(); },
                 [&](const step::Attend& it) { return attend(it, between_pieces); },
                 [&](const step::Route&) { return route(weights), Status(); },
                 [&](const step::Gather& it) { return gather(it), Status(); },
                 [&](const step::Scatter&) { return scatter(), Status(); },
                 [&](const step::AddGated& it) { return add_gated(it), Status(); },
                 [](const auto&) -> Status { AIRLLM_CHECK(false); }},
      step.what);
}

void ForwardPass::run_tile(const Step& step, const TileView& tile) {
  if (active_rows_ == 0) return;
  std::visit(Overloaded{[&](const step::Normalize& it) { normalize(it, tile); },
                        [&](const step::Product& it) { multiply(it, tile); },
                        [&](const step::Bias& it) { add_bias(it, tile); },
                        [&](const step::AbsorbKeys&) { absorb_keys(tile); },
                        [&](const step::ExpandValues&) { expand_values(tile); },
                        [&](const step::LoadParameter& it) { load_parameter(it, tile); },
                        [&](const step::LoadRouterBias&) { load_router_bias(tile); },
                        [](const auto&) { AIRLLM_CHECK(false); }},
             step.what);
}

Status ForwardPass::lookup(const step::Lookup& step, size_t tensor, WeightSource& weights) {
  for (size_t r = 0; r < rows_.size(); ++r) {
    float* const to = at(step.to) + r * stride(step.to);
    const uint64_t row =
        step.by_position ? rows_[r].position + step.offset : static_cast<uint64_t>(rows_[r].token);
    if (!step.adds) {
      AIRLLM_TRY_VOID(weights.lookup(tensor, row, to));
      continue;
    }
    float* const found = at({Buffer::kNormed});  // not in use yet
    AIRLLM_TRY_VOID(weights.lookup(tensor, row, found));
    add_row(found, to, step.to.width, 1);
  }
  return {};
}

void ForwardPass::normalize(const step::Normalize& step, const TileView& tile) {
  kernels::NormArgs args;
  args.kind = step.norm.kind;
  args.weight = tile.data;
  args.format = tile.format;
  args.weight_offset = static_cast<float>(step.norm.weight_offset);
  args.epsilon = static_cast<float>(step.norm.epsilon);
  args.x_stride = stride(step.from);
  args.y_stride = stride(step.to);
  args.rows = active_rows_;
  args.width = step.from.width / step.groups;
  args.x = at(step.from);
  args.y = at(step.to);
  if (tile.rows <= 1) {
    args.groups = step.groups;
    backend_.norm(args, pool_);
    return;
  }
  // A weight for each group.
  for (size_t i = 0; i < tile.rows; ++i) {
    const size_t group = (tile.row_begin + i) * args.width;
    args.x = at(step.from) + group;
    args.y = at(step.to) + group;
    args.weight = tile.data + i * args.width * kernels::bytes_per_element(tile.format);
    backend_.norm(args, pool_);
  }
}

void ForwardPass::multiply(const step::Product& step, const TileView& tile) {
  kernels::MatmulArgs args;
  args.x = at(step.from);
  args.x_stride = stride(step.from);
  args.weight = tile.data;
  args.format = tile.format;
  args.y = at(step.to) + tile.row_begin;
  args.y_stride = stride(step.to);
  args.rows = active_rows_;
  args.in = step.from.width;
  args.out = tile.rows;
  args.weight_stride = kernels::row_bytes(tile.format, args.in, tile.outliers.size());
  args.accumulate = step.adds;
  if (kernels::takes_prepared(tile.format)) {
    if (tile.row_begin == 0) prepare(args);
    args.prepared = prepared_;
  }
  backend_.matmul(args, pool_);
  if (!tile.outliers.empty()) multiply_outliers(step, tile);
  if (step.normalizes_rows) divide_by_row_norms(step, tile);
}

// What products with this input take, for all tiles of the weight.
void ForwardPass::prepare(const kernels::MatmulArgs& args) {
  AIRLLM_CHECK(limits_.prepares && args.in <= widest_input(architecture_));
  backend_.prepare(args, prepared_, pool_);
}

// What the tile's outliers, f16 behind each of its rows, add.
void ForwardPass::multiply_outliers(const step::Product& step, const TileView& tile) {
  const size_t count = tile.outliers.size();
  AIRLLM_CHECK(count <= limits_.outliers);
  if (tile.row_begin == 0) {  // else they are there
    for (size_t r = 0; r < active_rows_; ++r) {
      // As rows of one number each.
      backend_.copy({at(step.from) + r * stride(step.from), 1, tile.outliers.data(),
                     outlier_inputs_ + r * count, 1, count, 1},
                    pool_);
    }
  }
  kernels::MatmulArgs args;
  args.x = outlier_inputs_;
  args.x_stride = count;
  args.weight = tile.data + kernels::outliers_offset(tile.format, step.from.width);
  args.format = kernels::NumberFormat::kF16;
  args.weight_stride = kernels::row_bytes(tile.format, step.from.width, count);
  args.y = at(step.to) + tile.row_begin;
  args.y_stride = stride(step.to);
  args.rows = active_rows_;
  args.in = count;
  args.out = tile.rows;
  args.accumulate = true;
  backend_.matmul(args, pool_);
}

// Of the rows that no sweep has measured yet.
void ForwardPass::measure_row_norms(const step::Product& step, const TileView& tile) {
  constexpr double kLeastNorm = 1e-12;
  inverse_row_norms_.resize(step.to.width);
  std::vector<float> row(step.from.width);
  for (size_t i = 0; i < tile.rows; ++i) {
    float& inverse = inverse_row_norms_[tile.row_begin + i];
    if (inverse != 0) continue;
    convert(tile, i, row);
    double squares = 0;
    for (const float number : row) squares += static_cast<double>(number) * number;
    inverse = static_cast<float>(1 / std::max(std::sqrt(squares), kLeastNorm));
  }
}

// By the host: few models do this, and for their head alone.
void ForwardPass::divide_by_row_norms(const step::Product& step, const TileView& tile) {
  measure_row_norms(step, tile);
  std::vector<float> divided(tile.rows);
  for (size_t r = 0; r < active_rows_; ++r) {
    float* const y = at(step.to) + r * stride(step.to) + tile.row_begin;
    const std::span<const float> numbers = look(y, tile.rows);
    for (size_t i = 0; i < tile.rows; ++i) {
      divided[i] = numbers[i] * inverse_row_norms_[tile.row_begin + i];
    }
    memory_.write(reinterpret_cast<std::byte*>(y), std::as_bytes(std::span(divided)));
  }
}

void ForwardPass::add_bias(const step::Bias& step, const TileView& tile) {
  const uint64_t width = step.to.width / step.groups;
  for (uint64_t group = 0; group < step.groups; ++group) {
    backend_.add_bias(at(step.to) + group * width, stride(step.to), tile.data, tile.format,
                      active_rows_, width, pool_);
  }
}

void ForwardPass::add(const step::Add& step) {
  kernels::AddArgs args;
  args.x = at(step.from);
  args.x_stride = stride(step.from);
  args.y = at(step.to);
  args.y_stride = stride(step.to);
  args.rows = active_rows_;
  args.width = step.to.width;
  args.factor = step.factor;
  backend_.add(args, pool_);
}

void ForwardPass::add_row(const float* from, float* to, size_t width, float factor) {
  backend_.add({from, width, to, width, 1, width, factor}, pool_);
}

void ForwardPass::map(const step::Map& step) {
  kernels::MapArgs args = step.function;
  if (args.function == kernels::Function::kXielu) {
    const auto [positive, negative, beta, epsilon] = parameters_;
    const auto softplus = [](float x) {
      return std::max(x, 0.0F) + std::log1p(std::exp(-std::fabs(x)));
    };
    args.a = softplus(positive);
    args.b = beta + softplus(negative);
    args.c = beta;
    args.d = epsilon;
  }
  args.x = at(step.to);
  args.x_stride = stride(step.to);
  if (step.factor.width > 0) {
    args.factor = at(step.factor);
    args.factor_stride = stride(step.factor);
  }
  args.rows = active_rows_;
  args.width = step.to.width;
  backend_.map(args, pool_);
}

void ForwardPass::ungroup(const step::Ungroup& step) {
  const uint64_t q = architecture_.q_width() / step.groups;
  const uint64_t kv = architecture_.kv_width() / step.groups;
  const uint64_t k_begin = architecture_.q_width();
  const uint64_t v_begin = k_begin + architecture_.kv_width();
  const size_t row_floats = architecture_.qkv_width();
  for (uint64_t g = 0; g < step.groups; ++g) {
    const float* const from = at({Buffer::kFused}) + g * (q + 2 * kv);
    const auto move = [&](const float* part, uint64_t to, uint64_t width) {
      copy_rows(part, row_floats, at({Buffer::kQkv}) + to, row_floats, rows_.size(), width);
    };
    move(from, g * q, q);
    const float* const first = from + q;
    const float* const second = first + kv;
    move(step.values_before_keys ? second : first, k_begin + g * kv, kv);
    move(step.values_before_keys ? first : second, v_begin + g * kv, kv);
  }
}

void ForwardPass::rotate(const step::Rotate& step) {
  const Rope& rope = architecture_.ropes[step.rope];
  kernels::RopeArgs args;
  args.x_stride = stride(step.to);
  args.head_dim = step.head_dim;
  args.rotary_dim = rope.dim;
  args.interleaved = rope.interleaved;
  args.heads = step.to.width / step.head_dim;
  for (const RotationRun& run : rotation_runs_[step.rope]) {
    args.x = at(step.to) + step.begin + run.first * args.x_stride;
    args.positions = positions_.data() + run.first;
    args.rows = run.rows;
    args.inverse_frequencies = run.frequencies.data();
    args.scale = static_cast<float>(run.factor);
    backend_.rope(args, pool_);
  }
}

// All of them before attention: rows of one chunk see each other.
void ForwardPass::keep_keys_and_values() {
  const bool is_latent = architecture_.is_latent();
  const Slice keys = is_latent ? Slice{Buffer::kKey} : Slice{Buffer::kQkv, architecture_.q_width()};
  for (size_t r = 0; r < rows_.size(); ++r) {
    const float* const k = at(keys) + r * stride(keys);
    rows_[r].sequence->write(stages_[stage_].layer, rows_[r].position, k,
                             k + architecture_.kv_width(), backend_, pool_);
  }
}

// Moves the rows that want logits, in their order, to the front of all buffers that are in use.
void ForwardPass::keep_rows_with_logits(Buffer queries) {
  if (logit_rows_ == rows_.size()) return;
  rows_with_logits_.clear();
  for (size_t r = 0; r < rows_.size(); ++r) {
    if (!rows_[r].wants_logits) continue;
    const size_t to = rows_with_logits_.size();
    rows_with_logits_.push_back(rows_[r]);
    if (r == to) continue;
    for (const Buffer buffer : {Buffer::kStream, Buffer::kNormed, Buffer::kSecond, queries}) {
      const size_t width = stride({buffer});
      if (width == 0) continue;
      copy_rows(at({buffer}) + r * width, width, at({buffer}) + to * width, width, 1, width);
    }
  }
  rows_ = rows_with_logits_;
  active_rows_ = rows_.size();
}

Status ForwardPass::attend(const step::Attend& step,
                           const std::function<Status()>& between_pieces) {
  const Architecture& a = architecture_;
  keep_keys_and_values();
  const Slice queries{a.is_latent() ? Buffer::kQuery : Buffer::kQkv};
  if (step.is_last) keep_rows_with_logits(queries.buffer);
  attention_rows_.clear();
  for (const Row& row : rows_) {
    attention_rows_.push_back({row.sequence->pages(stages_[stage_].layer), row.position});
  }
  kernels::AttentionArgs args;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim;
  args.value_dim = a.is_latent() ? a.latent.kv_rank : a.head_dim;
  args.values_in_keys = a.is_latent();
  const Slice mixed{Buffer::kMixed};
  args.q_stride = stride(queries);
  args.scale = static_cast<float>(step.kind.scale);
  args.window = step.kind.window;
  args.soft_cap = static_cast<float>(a.attention_soft_cap);
  args.slopes = a.alibi ? slopes_.data() : nullptr;
  args.bf16_biases = a.alibi_of_falcon;
  for (size_t first = 0; first < rows_.size(); first += args.rows) {
    if (first > 0) AIRLLM_TRY_VOID(between_pieces());
    args.q = at(queries) + first * args.q_stride;
    args.out = at(mixed) + first * stride(mixed);
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

namespace {

// Rows of a tile that make the same head's keys, or its values.
struct HeadRows {
  const std::byte* data;
  size_t rows;
  uint64_t head;
  uint64_t begin;  // of the first among the head's keys or values
};

// Calls visit for the runs of a tile of kv_high whose rows make keys, or values.
template <typename Visit>
void for_each_head(const Latent& latent, const TileView& tile, bool values, const Visit& visit) {
  const uint64_t head_rows = latent.nope_dim + latent.value_dim;
  const size_t row_bytes = latent.kv_rank * kernels::bytes_per_element(tile.format);
  for (size_t at = 0; at < tile.rows;) {
    const uint64_t head = (tile.row_begin + at) / head_rows;
    const uint64_t inside = (tile.row_begin + at) % head_rows;
    const bool is_value = inside >= latent.nope_dim;
    const uint64_t first = is_value ? latent.nope_dim : 0;
    const uint64_t end = is_value ? head_rows : latent.nope_dim;
    const size_t rows = std::min<size_t>(end - inside, tile.rows - at);
    if (is_value == values) visit(HeadRows{tile.data + at * row_bytes, rows, head, inside - first});
    at += rows;
  }
}

}  // namespace

kernels::MatmulArgs ForwardPass::head_product(const Slice& from, const Slice& to,
                                              const TileView& tile) const {
  kernels::MatmulArgs args;
  args.x_stride = stride(from);
  args.y_stride = stride(to);
  args.format = tile.format;
  args.rows = rows_.size();
  args.in = architecture_.latent.kv_rank;
  return args;
}

void ForwardPass::absorb_keys(const TileView& tile) {
  const Latent& latent = architecture_.latent;
  const Slice raw{Buffer::kRawQuery}, query{Buffer::kQuery};
  if (tile.row_begin == 0) {
    for (uint64_t h = 0; h < architecture_.heads; ++h) {
      const float* const from = at(raw) + h * latent.query_dim() + latent.nope_dim;
      float* const to = at(query) + h * architecture_.head_dim;
      copy_rows(nullptr, 0, to, stride(query), rows_.size(), latent.kv_rank);
      copy_rows(from, stride(raw), to + latent.kv_rank, stride(query), rows_.size(),
                latent.rope_dim);
    }
  }
  kernels::MatmulArgs args = head_product(raw, query, tile);
  for_each_head(latent, tile, false, [&](const HeadRows& run) {
    args.x = at(raw) + run.head * latent.query_dim() + run.begin;
    args.y = at(query) + run.head * architecture_.head_dim;
    args.weight = run.data;
    args.out = run.rows;
    backend_.matmul_transposed(args, pool_);
  });
}

void ForwardPass::expand_values(const TileView& tile) {
  const Latent& latent = architecture_.latent;
  const Slice mixed{Buffer::kMixed}, values{Buffer::kValues};
  kernels::MatmulArgs args = head_product(mixed, values, tile);
  for_each_head(latent, tile, true, [&](const HeadRows& run) {
    args.x = at(mixed) + run.head * latent.kv_rank;
    args.y = at(values) + run.head * latent.value_dim + run.begin;
    args.weight = run.data;
    args.out = run.rows;
    backend_.matmul(args, pool_);
  });
}

void ForwardPass::load_parameter(const step::LoadParameter& step, const TileView& tile) {
  convert(tile, 0, {&parameters_[static_cast<size_t>(step.which)], 1});
}

void ForwardPass::load_router_bias(const TileView& tile) {
  router_bias_.resize(architecture_.router.experts);
  convert(tile, 0, router_bias_);
}

void ForwardPass::route(WeightSource& weights) {
  const Router& router = architecture_.router;
  for (std::vector<RoutedRow>& rows : routed_) rows.clear();
  const std::span<const float> logits = look(at({Buffer::kRouter}), rows_.size() * router.experts);
  for (size_t r = 0; r < rows_.size(); ++r) {
    choose_experts(router, logits.subspan(r * router.experts, router.experts), router_bias_,
                   router_memory_);
    for (const ExpertChoice& choice : router_memory_.choices) {
      routed_[choice.expert].push_back({r, choice.weight});
    }
  }
  used_experts_.resize(router.experts);
  for (size_t e = 0; e < router.experts; ++e) used_experts_[e] = !routed_[e].empty();
  weights.choose_experts(used_experts_);
  if (rows_.empty()) return;
  const size_t width = architecture_.hidden;
  copy_rows(nullptr, 0, at({Buffer::kBranch}), width, rows_.size(), width);
}

bool ForwardPass::is_left_out(const Step& step) const {
  return step.expert && routed_[*step.expert].empty();
}

void ForwardPass::gather(const step::Gather& step) {
  const std::vector<RoutedRow>& rows = routed_[*current().expert];
  chosen_rows_.clear();
  for (const RoutedRow& routed : rows) chosen_rows_.push_back(routed.row);
  copy_rows(at(step.from), stride(step.from), at({Buffer::kExpertIn}), step.from.width,
            chosen_rows_.size(), step.from.width, chosen_rows_.data());
  active_rows_ = rows.size();
}

void ForwardPass::scatter() {
  const size_t width = architecture_.hidden;
  const float* from = at({Buffer::kExpertOut});
  for (const RoutedRow& routed : routed_[*current().expert]) {
    add_row(from, at({Buffer::kBranch}) + routed.row * width, width, routed.weight);
    from += width;
  }
  active_rows_ = rows_.size();
}

void ForwardPass::add_gated(const step::AddGated& step) {
  const std::span<const float> gates = look(at({Buffer::kSharedGate}), rows_.size());
  for (size_t r = 0; r < rows_.size(); ++r) {
    const float factor = 1 / (1 + std::exp(-gates[r]));
    add_row(at(step.from) + r * stride(step.from), at(step.to) + r * stride(step.to), step.to.width,
            factor);
  }
}

}  // namespace airllm::model

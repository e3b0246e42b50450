#include "kernels/operation_set.h"

#include <algorithm>
#include <atomic>
#include <span>
#include <utility>

#include "kernels/memory_sum.h"

namespace airllm::kernels {
namespace {

// The shapes of a model of 7 or 8 billion weights.
constexpr size_t kWidth = 4096;
constexpr size_t kHeads = 32, kKvHeads = 8, kHeadDim = 128;
constexpr size_t kPositions = 4096;
constexpr uint64_t kPeakRounds = uint64_t{1} << 20;

constexpr size_t kMostRows = 512;
constexpr size_t kMostRowsOfAttention = 64;
constexpr size_t kPageFloats = 2 * kKvHeads * kKvPagePositions * kHeadDim;
constexpr size_t kPages = kPositions / kKvPagePositions;
constexpr size_t kPreparedAlignment = 64;

}  // namespace

struct OperationSet::Data {
  std::vector<uint16_t> weights;
  std::vector<float> x;       // [kMostRows, kWidth]
  std::vector<float> y;       // of the operation that has most
  std::vector<float> mapped;  // [kMostRows, kWidth], zeros, which stay zeros
  std::vector<std::byte> prepared_room;
  void* prepared = nullptr;            // in it, of kMostRows, aligned
  std::vector<float> keys_and_values;  // kPositions of them
  std::vector<const float*> pages;
  std::vector<AttentionRow> attention_rows;
  std::atomic<uint64_t> sink{0};
};

OperationSet::~OperationSet() = default;

OperationSet::OperationSet(const Backend& backend, ThreadPool& pool, uint64_t memory_bytes)
    : backend_(backend), pool_(pool), data_(std::make_unique<Data>()) {
  // Patterns of 16 bits that are small finite numbers, in any format that is read of them.
  data_->weights.resize(memory_bytes / sizeof(uint16_t));
  const size_t some = std::min<size_t>(data_->weights.size(), size_t{1} << 20);
  uint32_t state = 12345;
  for (size_t i = 0; i < some; ++i) {
    state = state * 1664525 + 1013904223;
    data_->weights[i] = static_cast<uint16_t>((state >> 16 & 0x8fff) | 0x3000);
  }
  for (size_t i = some; i < data_->weights.size(); i += some) {
    std::copy_n(data_->weights.begin(), std::min(some, data_->weights.size() - i),
                data_->weights.begin() + static_cast<std::ptrdiff_t>(i));
  }
  data_->x.assign(kMostRows * kWidth, 0.5f);
  data_->mapped.resize(kMostRows * kWidth);
  const size_t prepared_bytes = kMostRows * most_prepared_bytes(kWidth);
  size_t room = prepared_bytes + kPreparedAlignment;
  data_->prepared_room.resize(room);
  data_->prepared = data_->prepared_room.data();
  std::align(kPreparedAlignment, prepared_bytes, data_->prepared, room);
  data_->keys_and_values.assign(kPages * kPageFloats, 0.25f);
  for (size_t p = 0; p < kPages; ++p) {
    data_->pages.push_back(&data_->keys_and_values[p * kPageFloats]);
  }
  data_->attention_rows.assign(kMostRowsOfAttention, {data_->pages.data(), kPositions - 1});

  memory_read_.name = "read_memory";
  memory_read_.bytes = memory_bytes;
  memory_read_.run = [this] {
    data_->sink += sum_memory(std::as_bytes(std::span(data_->weights)), pool_);
  };
  peak_.name = "peak";
  peak_.run = [this] {
    pool_.run(pool_.threads(), 1, [this](size_t begin, size_t end) {
      for (; begin < end; ++begin) data_->sink += backend_.burn(kPeakRounds);
    });
  };
  peak_.flop = pool_.threads() * backend_.burn(kPeakRounds);

  const bool is_reference = &backend == &scalar_backend();
  for (const NumberFormat format : kAllFormats) {
    const uint64_t row = row_bytes(format, kWidth);
    if (is_reference) {
      add_product(format, 1, std::min(memory_bytes, 1024 * row));
      continue;
    }
    for (const size_t rows : {1, 4, 16}) add_product(format, rows, memory_bytes);
    for (const size_t rows : {size_t{128}, kMostRows}) {
      add_product(format, rows, std::min(memory_bytes, kWidth * row));
    }
  }
  add_attention(1);
  if (!is_reference) add_attention(kMostRowsOfAttention);
  for (const size_t rows : {size_t{1}, kMostRows}) {
    add_norm(rows);
    add_activation(rows);
  }
}

MeasuredOperation& OperationSet::add(const char* name, size_t rows, size_t outputs,
                                     std::function<void()> run) {
  data_->y.resize(std::max(data_->y.size(), outputs));
  MeasuredOperation& operation = operations_.emplace_back();
  operation.name = name;
  operation.rows = rows;
  operation.run = std::move(run);
  return operation;
}

void OperationSet::add_product(NumberFormat format, size_t rows, uint64_t weight_bytes) {
  const size_t out = std::max<size_t>(weight_bytes / row_bytes(format, kWidth), 1);
  MeasuredOperation& operation = add("product", rows, rows * out, [this, format, rows, out] {
    MatmulArgs args;
    args.x = data_->x.data();
    args.x_stride = kWidth;
    args.weight = data_->weights.data();
    args.format = format;
    args.y = data_->y.data();
    args.y_stride = out;
    args.rows = rows;
    args.in = kWidth;
    args.out = out;
    if (takes_prepared(format) && backend_.prepared_bytes(kWidth) > 0) {
      backend_.prepare(args, data_->prepared, pool_);
      args.prepared = data_->prepared;
    }
    backend_.matmul(args, pool_);
  });
  operation.format = format;
  operation.bytes = out * row_bytes(format, kWidth);
  operation.flop = 2 * rows * out * kWidth;
}

void OperationSet::add_attention(size_t rows) {
  MeasuredOperation& operation = add("attention", rows, rows * kHeads * kHeadDim, [this, rows] {
    AttentionArgs args;
    args.q = data_->x.data();
    args.q_stride = kHeads * kHeadDim;
    args.out = data_->y.data();
    args.attention_rows = data_->attention_rows.data();
    args.rows = rows;
    args.heads = kHeads;
    args.kv_heads = kKvHeads;
    args.head_dim = args.value_dim = kHeadDim;
    args.scale = 0.088f;
    backend_.attention(args, pool_);
  });
  operation.positions = kPositions;
  operation.bytes = kPages * kPageFloats * sizeof(float);
  operation.flop = 4 * rows * kPositions * kHeads * kHeadDim;
}

void OperationSet::add_norm(size_t rows) {
  MeasuredOperation& operation = add("norm", rows, rows * kWidth, [this, rows] {
    NormArgs args;
    args.x = data_->x.data();
    args.x_stride = kWidth;
    args.weight = data_->weights.data();
    args.format = NumberFormat::kBF16;
    args.y = data_->y.data();
    args.y_stride = kWidth;
    args.rows = rows;
    args.width = kWidth;
    args.epsilon = 1e-5f;
    backend_.norm(args, pool_);
  });
  operation.bytes = rows * kWidth * sizeof(float);
}

// SiLU times a factor, as between the products of a gated MLP.
void OperationSet::add_activation(size_t rows) {
  MeasuredOperation& operation = add("activation", rows, 0, [this, rows] {
    MapArgs args;
    args.function = Function::kSilu;
    args.x = data_->mapped.data();
    args.x_stride = kWidth;
    args.factor = data_->x.data();
    args.factor_stride = kWidth;
    args.rows = rows;
    args.width = kWidth;
    backend_.map(args, pool_);
  });
  operation.bytes = 2 * rows * kWidth * sizeof(float);
}

}  // namespace airllm::kernels

#include "kernels/operation_set.h"

#include <algorithm>
#include <atomic>
#include <cstring>
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
constexpr size_t kRowsOfAttention[] = {1, 64};

}  // namespace

struct OperationSet::Data {
  std::vector<uint16_t> weights;
  std::vector<float> x;                // [kMostRows, kWidth]
  std::vector<float> y;                // of the widest product
  std::vector<float> mapped;           // [kMostRows, kWidth], zeros, which stay zeros
  std::vector<std::byte> prepared;     // of kMostRows
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
  data_->prepared.resize(kMostRows * most_prepared_bytes(kWidth) + 64);

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
    for (const size_t rows : {128, 512})
      add_product(format, rows, std::min(memory_bytes, kWidth * row));
  }
  for (const size_t rows : kRowsOfAttention) {
    if (!is_reference || rows == 1) add_attention(rows);
  }
  for (const size_t rows : {size_t{1}, kMostRows}) {
    add_norm(rows);
    add_activation(rows);
  }
}

void OperationSet::add_product(NumberFormat format, size_t rows, uint64_t weight_bytes) {
  const size_t out = std::max<size_t>(weight_bytes / row_bytes(format, kWidth), 1);
  data_->y.resize(std::max(data_->y.size(), rows * out));
  MeasuredOperation operation;
  operation.name = "product";
  operation.format = format;
  operation.rows = rows;
  operation.bytes = out * row_bytes(format, kWidth);
  operation.flop = 2 * rows * out * kWidth;
  operation.run = [this, format, rows, out] {
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
    if (is_compressed(format) && backend_.prepared_bytes(kWidth) > 0) {
      void* prepared = data_->prepared.data();
      size_t room = data_->prepared.size();
      prepared = std::align(64, room - 64, prepared, room);
      backend_.prepare(args, prepared, pool_);
      args.prepared = prepared;
    }
    backend_.matmul(args, pool_);
  };
  operations_.push_back(std::move(operation));
}

void OperationSet::add_attention(size_t rows) {
  constexpr size_t kPageFloats = 2 * kKvHeads * kKvPagePositions * kHeadDim;
  constexpr size_t kPages = kPositions / kKvPagePositions;
  if (data_->pages.empty()) {
    data_->keys_and_values.assign(kPages * kPageFloats, 0.25f);
    for (size_t p = 0; p < kPages; ++p) {
      data_->pages.push_back(&data_->keys_and_values[p * kPageFloats]);
    }
    data_->attention_rows.assign(kMostRows, {data_->pages.data(), kPositions - 1});
  }
  data_->y.resize(std::max(data_->y.size(), rows * kHeads * kHeadDim));
  MeasuredOperation operation;
  operation.name = "attention";
  operation.rows = rows;
  operation.positions = kPositions;
  operation.bytes = kPages * kPageFloats * sizeof(float);
  operation.flop = 4 * rows * kPositions * kHeads * kHeadDim;
  operation.run = [this, rows] {
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
  };
  operations_.push_back(std::move(operation));
}

void OperationSet::add_norm(size_t rows) {
  data_->y.resize(std::max(data_->y.size(), rows * kWidth));
  MeasuredOperation operation;
  operation.name = "norm";
  operation.rows = rows;
  operation.bytes = rows * kWidth * sizeof(float);
  operation.run = [this, rows] {
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
  };
  operations_.push_back(std::move(operation));
}

// SiLU times a factor, as between the products of a gated MLP.
void OperationSet::add_activation(size_t rows) {
  data_->mapped.resize(kMostRows * kWidth);
  MeasuredOperation operation;
  operation.name = "activation";
  operation.rows = rows;
  operation.bytes = 2 * rows * kWidth * sizeof(float);
  operation.run = [this, rows] {
    MapArgs args;
    args.function = Function::kSilu;
    args.x = data_->mapped.data();
    args.x_stride = kWidth;
    args.factor = data_->x.data();
    args.factor_stride = kWidth;
    args.rows = rows;
    args.width = kWidth;
    backend_.map(args, pool_);
  };
  operations_.push_back(std::move(operation));
}

}  // namespace airllm::kernels

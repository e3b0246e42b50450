#include "engine/store/run_stream.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/units.h"
#include "engine/store/io_buffer.h"
#include "engine/store/nonfinite.h"
#include "engine/store/shard_layout.h"
#include "kernels/backend.h"
#include "kernels/compressed.h"
#include "kernels/convert.h"
#include "kernels/thread_pool.h"

namespace airllm::store {
namespace {

// Of a run, as it came or as it is stored, whichever is more. Large enough that the disk sees long
// requests, small beside the memory that a split may use.
constexpr uint64_t kRunBytes = 4 * kMiB;
// At least one for each thread, and no more than even out what holds a thread up for a while.
constexpr size_t kLeastSlots = 3;
constexpr size_t kMostSlots = 32;

struct Rows {
  uint64_t first = 0, count = 0;
};

enum class Purpose : uint8_t {
  kMoments,   // to find the tensor's outliers
  kWeights,   // to be taken
  kStageEnd,  // nothing is read: the stage has no more
};

struct Slot {
  size_t stage = 0;
  std::shared_ptr<std::vector<ShardTensor>> tensors;  // of the stage
  size_t tensor = 0;
  Purpose purpose = Purpose::kWeights;
  Rows rows;
  IoBuffer came_memory, stored_memory;
  std::span<std::byte> came;
  std::span<const std::byte> data;  // as it is stored

  ShardTensor& shard_tensor() const { return (*tensors)[tensor]; }
};

enum class Station : uint8_t { kRead, kConvert, kTake };
constexpr size_t kStations = 3;

// Slots that the stations' threads work on in turn, each in the same order.
class Belt {
 public:
  explicit Belt(uint64_t memory_bytes)
      : slots_(std::clamp(memory_bytes / (2 * kRunBytes), kLeastSlots, kMostSlots)) {}

  // The station's next slot, which is its own until it passes it on; null when none comes any more.
  Slot* wait(Station station) {
    std::unique_lock lock(mutex_);
    const size_t at = index(station);
    changed_.wait(lock, [&] { return error_ || passed_[at] < limit(at) || is_through(at); });
    if (error_ || is_through(at)) return nullptr;
    return &slots_[passed_[at] % slots_.size()];
  }
  void pass(Station station) {
    change([&] { ++passed_[index(station)]; });
  }
  // No slot comes after those that were passed on by the first station.
  void end() {
    change([&] { has_ended_ = true; });
  }
  // Ends all at once; the first error stays.
  void stop(Error error) {
    change([&] {
      if (!error_) error_ = std::move(error);
    });
  }
  // When all threads are done.
  Status status() {
    if (error_) return Unexpected(std::move(*error_));
    return {};
  }

 private:
  static size_t index(Station station) { return static_cast<size_t>(station); }
  size_t limit(size_t at) const {
    return at == 0 ? passed_[kStations - 1] + slots_.size() : passed_[at - 1];
  }
  bool is_through(size_t at) const { return has_ended_ && passed_[at] == passed_[0]; }

  template <typename Change>
  void change(const Change& apply) {
    {
      const std::lock_guard lock(mutex_);
      apply();
    }
    changed_.notify_all();
  }

  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<size_t, kStations> passed_{};
  bool has_ended_ = false;
  std::optional<Error> error_;
};

// Reads the runs' numbers as they came.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, Belt& belt) : checkpoint_(checkpoint), belt_(belt) {}

  // False when the belt has stopped.
  Result<bool> read(StageRange stages) {
    for (size_t stage = stages.begin; stage < stages.end; ++stage) {
      AIRLLM_TRY(const bool goes_on, read_stage(stage));
      if (!goes_on) return false;
    }
    belt_.end();
    return true;
  }

 private:
  Result<bool> read_stage(size_t stage) {
    tensors_ = std::make_shared<std::vector<ShardTensor>>(stored_tensors(checkpoint_, stage));
    for (size_t i = 0; i < tensors_->size(); ++i) {
      if (checkpoint_.tensors[stage][i].outliers > 0) {
        AIRLLM_TRY(const bool goes_on, read_tensor(stage, i, Purpose::kMoments));
        if (!goes_on) return false;
      }
      AIRLLM_TRY(const bool goes_on, read_tensor(stage, i, Purpose::kWeights));
      if (!goes_on) return false;
    }
    return pass(stage, 0, Purpose::kStageEnd, {}) != nullptr;
  }

  Result<bool> read_tensor(size_t stage, size_t tensor, Purpose purpose) {
    const SourceTensor& source = checkpoint_.tensors[stage][tensor];
    const ShardTensor& stored = (*tensors_)[tensor];
    const uint64_t came_row_bytes = kernels::row_bytes(source.format, stored.shape.back());
    const uint64_t block_bytes = std::max(stored.row_bytes, came_row_bytes) * stored.rows_per_block;
    const uint64_t run_rows =
        std::max<uint64_t>(kRunBytes / block_bytes, 1) * stored.rows_per_block;
    for (uint64_t first = 0; first < stored.rows; first += run_rows) {
      Slot* const slot = belt_.wait(Station::kRead);
      if (slot == nullptr) return false;
      fill(*slot, stage, tensor, purpose, {first, std::min(run_rows, stored.rows - first)});
      AIRLLM_TRY(slot->came, read_rows(source, *slot));
      belt_.pass(Station::kRead);
    }
    return true;
  }

  Slot* pass(size_t stage, size_t tensor, Purpose purpose, const Rows& rows) {
    Slot* const slot = belt_.wait(Station::kRead);
    if (slot == nullptr) return nullptr;
    fill(*slot, stage, tensor, purpose, rows);
    belt_.pass(Station::kRead);
    return slot;
  }

  void fill(Slot& slot, size_t stage, size_t tensor, Purpose purpose, const Rows& rows) const {
    slot.stage = stage;
    slot.tensors = tensors_;
    slot.tensor = tensor;
    slot.purpose = purpose;
    slot.rows = rows;
    slot.came = {};
    slot.data = {};
  }

  // Whole rows in the format that they came in; of a packed form that is stored as it is, in that.
  Result<std::span<std::byte>> read_rows(const SourceTensor& source, Slot& slot) {
    const ShardTensor& tensor = slot.shard_tensor();
    const Rows& rows = slot.rows;
    const uint64_t row_bytes = source.is_exact()
                                   ? tensor.row_bytes
                                   : kernels::row_bytes(source.format, tensor.shape.back());
    if (!source.packed && !source.is_transposed) {
      return file_of(source).read_bulk(source.offset_bytes + rows.first * row_bytes,
                                       rows.count * row_bytes, slot.came_memory);
    }
    AIRLLM_TRY(const std::span<std::byte> memory, slot.came_memory.reserve(rows.count * row_bytes));
    const std::span<std::byte> out = memory.first(rows.count * row_bytes);
    if (source.is_exact()) {
      AIRLLM_TRY_VOID(source.packed->copy_rows(checkpoint_.weight_files, rows.first, out));
    } else if (source.packed) {
      AIRLLM_TRY_VOID(expand(source, rows, out));
    } else {
      AIRLLM_TRY_VOID(read_columns(source, tensor, rows, out));
    }
    return out;
  }

  const DiskFile& file_of(const SourceTensor& source) const {
    return *checkpoint_.weight_files[source.file];
  }

  // Rows of the tensor, which are columns of the source.
  Status read_columns(const SourceTensor& source, const ShardTensor& tensor, const Rows& rows,
                      std::span<std::byte> out) {
    const uint64_t element = kernels::bytes_per_element(source.format);
    const uint64_t columns = tensor.shape.back();
    column_.resize(rows.count * element);
    for (uint64_t c = 0; c < columns; ++c) {
      AIRLLM_TRY_VOID(file_of(source).read_at(
          source.offset_bytes + (c * tensor.rows + rows.first) * element, column_));
      for (uint64_t r = 0; r < rows.count; ++r) {
        std::copy_n(column_.begin() + static_cast<std::ptrdiff_t>(r * element), element,
                    out.begin() + static_cast<std::ptrdiff_t>((r * columns + c) * element));
      }
    }
    return {};
  }

  Status expand(const SourceTensor& source, const Rows& rows, std::span<std::byte> out) {
    numbers_.resize(out.size() / kernels::bytes_per_element(source.format));
    AIRLLM_TRY_VOID(source.packed->expand(checkpoint_.weight_files, rows.first, numbers_));
    kernels::with_format(source.format, [&]<kernels::NumberFormat F>() {
      for (size_t i = 0; i < numbers_.size(); ++i) kernels::store<F>(out.data(), i, numbers_[i]);
    });
    return {};
  }

  const Checkpoint& checkpoint_;
  Belt& belt_;
  std::shared_ptr<std::vector<ShardTensor>> tensors_;
  std::vector<float> numbers_;
  std::vector<std::byte> column_;
};

// Has the numbers of a row that are not finite be 0; returns which.
std::vector<size_t> take_nonfinite(std::span<float> numbers) {
  std::vector<size_t> found;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::isfinite(numbers[i])) continue;
    found.push_back(i);
    numbers[i] = 0;
  }
  return found;
}

// Makes the runs what is stored, on all cores.
class Converter {
 public:
  explicit Converter(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  Status convert(Slot& slot) {
    if (slot.purpose == Purpose::kStageEnd) return {};
    const SourceTensor& source = checkpoint_.tensors[slot.stage][slot.tensor];
    if (slot.purpose == Purpose::kMoments) {
      add_moments(source.format, slot);
      return {};
    }
    slot.data = slot.came;
    bool is_finite = true;
    if (source.is_exact()) {
      is_finite = are_scales_finite(slot);
    } else if (source.stored_as == source.format) {
      is_finite = is_kept_finite(source.format, slot.came);
    } else {
      AIRLLM_TRY(is_finite, compress(source, slot));
    }
    if (is_finite || checkpoint_.allows_nonfinite) return {};
    return refused(slot);
  }

 private:
  // Of an input's weights.
  struct Moments {
    double sum = 0, squares = 0;

    double variance(double count) const { return squares / count - sum / count * (sum / count); }
  };

  kernels::ThreadPool& pool() {
    if (!pool_) pool_.emplace(std::max(1U, std::thread::hardware_concurrency()));
    return *pool_;
  }

  // Row `row` of the run as f32 in `numbers`, with 0 for what is not finite; returns which.
  static std::vector<size_t> to_f32(kernels::NumberFormat format, const Slot& slot, size_t row,
                                    std::span<float> numbers) {
    const size_t row_bytes = slot.came.size() / slot.rows.count;
    const std::span<const std::byte> came = slot.came.subspan(row * row_bytes, row_bytes);
    kernels::best_backend().to_f32(came.data(), format, numbers.data(), numbers.size());
    return has_nonfinite(format, came) ? take_nonfinite(numbers) : std::vector<size_t>();
  }

  // What is not finite counts as 0. Behind the last rows of the tensor, its outliers are known.
  void add_moments(kernels::NumberFormat format, const Slot& slot) {
    constexpr size_t kLeastInputs = 64;  // that are worth another thread
    ShardTensor& tensor = slot.shard_tensor();
    const size_t width = tensor.shape.back();
    const size_t rows = slot.rows.count;
    if (slot.rows.first == 0) moments_.assign(width, {});
    numbers_.resize(rows * width);
    pool().run(rows, 1, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        const std::span<float> numbers = std::span(numbers_).subspan(r * width, width);
        (void)to_f32(format, slot, r, numbers);
      }
    });
    pool().run(width, kLeastInputs, [&](size_t begin, size_t end) {
      for (size_t r = 0; r < rows; ++r) {
        for (size_t i = begin; i < end; ++i) {
          const double number = numbers_[r * width + i];
          moments_[i].sum += number;
          moments_[i].squares += number * number;
        }
      }
    });
    if (slot.rows.first + rows == tensor.rows) find_outliers(tensor);
  }

  // As many inputs as the tensor has outliers, those whose weights vary most.
  void find_outliers(ShardTensor& tensor) const {
    std::vector<size_t> places(moments_.size());
    std::iota(places.begin(), places.end(), size_t{0});
    const auto count = static_cast<std::ptrdiff_t>(tensor.outliers.size());
    const auto rows = static_cast<double>(tensor.rows);
    std::partial_sort(places.begin(), places.begin() + count, places.end(),
                      [&](size_t a, size_t b) {
                        return std::pair(-moments_[a].variance(rows), a) <
                               std::pair(-moments_[b].variance(rows), b);
                      });
    std::copy_n(places.begin(), count, tensor.outliers.begin());
    std::sort(tensor.outliers.begin(), tensor.outliers.end());
  }

  // What a model has compressed was seen when it was made.
  static bool is_kept_finite(kernels::NumberFormat format, std::span<const std::byte> numbers) {
    return kernels::is_compressed(format) || !has_nonfinite(format, numbers);
  }

  static Unexpected refused(const Slot& slot) {
    return Unexpected(ErrorCode::kData,
                      "tensor " + slot.shard_tensor().name +
                          " has numbers that are infinite or none (NaN), in rows " +
                          std::to_string(slot.rows.first) + " to " +
                          std::to_string(slot.rows.first + slot.rows.count - 1),
                      "get the checkpoint anew, it may be damaged; --allow-nonfinite keeps them");
  }

  // Of rows in the exact format of a packed form.
  static bool are_scales_finite(const Slot& slot) {
    const ShardTensor& tensor = slot.shard_tensor();
    bool is_finite = true;
    for (uint64_t r = 0; r < slot.rows.count; ++r) {
      const auto row = slot.data.subspan(r * tensor.row_bytes, tensor.row_bytes);
      const char* const begin = reinterpret_cast<const char*>(row.data());
      const uint64_t width = tensor.shape.back();
      const char* const first = tensor.format == kernels::NumberFormat::kNF4
                                    ? kernels::nf4_row(begin, width).scales
                                    : kernels::fp8_row(begin, width).scales;
      const auto scales = static_cast<size_t>(first - begin);
      is_finite = is_finite && !has_nonfinite(kernels::NumberFormat::kF32, row.subspan(scales));
    }
    return is_finite;
  }

  // A row is compressed by itself, so that nothing depends on how they are divided. Returns whether
  // all are finite; what shares a scale with one that is not is stored as NaN.
  Result<bool> compress(const SourceTensor& source, Slot& slot) {
    constexpr size_t kLeastRows = 8;  // that are worth another thread
    const kernels::Backend& cpu = kernels::best_backend();
    const ShardTensor& tensor = slot.shard_tensor();
    const uint64_t bytes = slot.rows.count * tensor.row_bytes;
    AIRLLM_TRY(const std::span<std::byte> out, slot.stored_memory.reserve(bytes));
    std::atomic<bool> is_finite = true;
    pool().run(slot.rows.count, kLeastRows, [&](size_t begin, size_t end) {
      std::vector<float> numbers(tensor.shape.back());
      for (size_t r = begin; r < end; ++r) {
        const std::vector<size_t> odd = to_f32(source.format, slot, r, numbers);
        char* const row = reinterpret_cast<char*>(out.data() + r * tensor.row_bytes);
        if (tensor.outliers.empty()) {
          cpu.compress_row(tensor.format, numbers.data(), numbers.size(), row);
        } else {
          kernels::compress_row_with_outliers(cpu.compress_row, tensor.format, tensor.outliers,
                                              numbers, row);
        }
        for (const size_t number : odd) {
          kernels::spoil(tensor.format, row, numbers.size(), number);
        }
        if (!odd.empty()) is_finite = false;
      }
    });
    slot.data = out.first(bytes);
    return is_finite.load();
  }

  const Checkpoint& checkpoint_;
  std::optional<kernels::ThreadPool> pool_;
  std::vector<float> numbers_;
  std::vector<Moments> moments_;
};

Status convert_all(Belt& belt, Converter& converter, const AdvanceFn& advance) {
  while (Slot* const slot = belt.wait(Station::kConvert)) {
    AIRLLM_TRY_VOID(converter.convert(*slot));
    const bool is_end = slot->purpose == Purpose::kStageEnd;
    const uint64_t bytes = slot->data.size();
    belt.pass(Station::kConvert);
    if (!is_end) AIRLLM_TRY_VOID(advance(bytes));
  }
  return {};
}

Status take_one(RunTaker& taker, const Slot& slot, bool is_first) {
  if (is_first) AIRLLM_TRY_VOID(taker.begin(slot.stage));
  if (slot.purpose == Purpose::kStageEnd) return taker.end();
  if (slot.purpose == Purpose::kMoments) return {};
  const ShardTensor& tensor = slot.shard_tensor();
  return taker.take({.tensor = slot.tensor,
                     .first_block = slot.rows.first / tensor.rows_per_block,
                     .offset_bytes = slot.rows.first * tensor.row_bytes,
                     .data = slot.data,
                     .outliers = tensor.outliers});
}

Status take_all(Belt& belt, RunTaker& taker) {
  bool is_first = true;  // of its stage
  while (const Slot* const slot = belt.wait(Station::kTake)) {
    AIRLLM_TRY_VOID(take_one(taker, *slot, is_first));
    is_first = slot->purpose == Purpose::kStageEnd;
    belt.pass(Station::kTake);
  }
  return {};
}

}  // namespace

std::vector<ShardTensor> stored_tensors(const Checkpoint& checkpoint, size_t stage) {
  const std::vector<SourceTensor>& sources = checkpoint.tensors[stage];
  std::vector<ShardTensor> out;
  for (size_t i = 0; i < sources.size(); ++i) {
    out.push_back(shard_tensor(checkpoint.stages[stage].tensors[i], sources[i].stored_as,
                               sources[i].outliers));
  }
  return out;
}

Status stream_runs(const Checkpoint& checkpoint, StageRange stages, RunTaker& taker,
                   const AdvanceFn& advance) {
  Belt belt(checkpoint.memory_bytes);
  {
    const std::jthread reading([&] {
      Reader reader(checkpoint, belt);
      Result<bool> read = reader.read(stages);
      if (!read) belt.stop(std::move(read).error());
    });
    const std::jthread taking([&] {
      Status taken = take_all(belt, taker);
      if (!taken) belt.stop(std::move(taken).error());
    });
    Converter converter(checkpoint);
    Status converted = convert_all(belt, converter, advance);
    if (!converted) belt.stop(std::move(converted).error());
  }
  return belt.status();
}

}  // namespace airllm::store

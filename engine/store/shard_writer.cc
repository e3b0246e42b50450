#include "engine/store/shard_writer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "base/units.h"
#include "engine/store/hash.h"
#include "engine/store/nonfinite.h"
#include "engine/store/shard_index.h"
#include "kernels/backend.h"
#include "kernels/compressed.h"
#include "kernels/convert.h"

namespace airllm::store {
namespace {

// Large enough that the disk sees long requests, small beside the memory that a split may use.
constexpr uint64_t kCopyBytes = 4 * kMiB;

// A run of whole blocks of one tensor.
struct Run {
  uint64_t first_block = 0;
  uint64_t offset_bytes = 0;  // in the tensor
  std::span<const std::byte> data;
};

// Has the numbers of a row that are not finite be 0; returns which.
std::vector<size_t> take_nonfinite(std::span<float> numbers) {
  std::vector<size_t> found;
  if (!has_nonfinite(kernels::NumberFormat::kF32, std::as_bytes(numbers))) return found;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::isfinite(numbers[i])) continue;
    found.push_back(i);
    numbers[i] = 0;
  }
  return found;
}

// Reads a source tensor in runs of whole blocks, through one buffer.
class BlockReader {
 public:
  explicit BlockReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  template <typename Visit>
  Status read(const SourceTensor& source, const ShardTensor& tensor, Visit visit) {
    const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
    const uint64_t run_bytes = std::max<uint64_t>(kCopyBytes / block_bytes, 1) * block_bytes;
    const uint64_t came_row_bytes = kernels::row_bytes(source.format, tensor.shape.back());
    for (uint64_t at = 0; at < tensor.bytes(); at += run_bytes) {
      const uint64_t bytes = std::min(run_bytes, tensor.bytes() - at);
      const Rows rows{at / tensor.row_bytes, bytes / tensor.row_bytes};
      std::span<std::byte> data;
      bool is_finite = true;
      if (source.is_exact()) {
        data = first_bytes(stored_, bytes);
        AIRLLM_TRY_VOID(source.packed->copy_rows(checkpoint_.weight_files, rows.first, data));
        is_finite = are_scales_finite(tensor, rows, data);
      } else {
        const std::span<std::byte> came = first_bytes(came_, rows.count * came_row_bytes);
        AIRLLM_TRY_VOID(read_rows(source, tensor, rows, came));
        const bool is_kept = source.stored_as == source.format;
        data = is_kept ? came : first_bytes(stored_, bytes);
        is_finite = is_kept ? is_kept_finite(source.format, came)
                            : compress(source, tensor, rows, came, data);
      }
      if (!is_finite && !checkpoint_.allows_nonfinite) return refused(tensor, rows);
      AIRLLM_TRY_VOID(visit(Run{at / block_bytes, at, data}));
    }
    return {};
  }

  // Finds as many inputs as the tensor has outliers, those whose weights vary most; advance(0) is
  // called now and then.
  Status find_outliers(const SourceTensor& source, ShardTensor& tensor, const AdvanceFn& advance) {
    const uint64_t width = tensor.shape.back();
    const uint64_t came_row_bytes = kernels::row_bytes(source.format, width);
    const uint64_t run_rows = std::max<uint64_t>(kCopyBytes / came_row_bytes, 1);
    std::vector<Moments> moments(width);
    for (uint64_t first = 0; first < tensor.rows; first += run_rows) {
      const Rows rows{first, std::min(run_rows, tensor.rows - first)};
      const std::span<std::byte> came = first_bytes(came_, rows.count * came_row_bytes);
      AIRLLM_TRY_VOID(read_rows(source, tensor, rows, came));
      add_moments(source.format, rows.count, came, moments);
      AIRLLM_TRY_VOID(advance(0));
    }
    std::vector<size_t> places(width);
    std::iota(places.begin(), places.end(), size_t{0});
    const auto count = static_cast<std::ptrdiff_t>(tensor.outliers.size());
    const auto rows = static_cast<double>(tensor.rows);
    std::partial_sort(places.begin(), places.begin() + count, places.end(),
                      [&](size_t a, size_t b) {
                        return std::pair(-moments[a].variance(rows), a) <
                               std::pair(-moments[b].variance(rows), b);
                      });
    std::copy_n(places.begin(), count, tensor.outliers.begin());
    std::sort(tensor.outliers.begin(), tensor.outliers.end());
    return {};
  }

 private:
  struct Rows {
    uint64_t first, count;
  };
  // Of an input's weights.
  struct Moments {
    double sum = 0, squares = 0;

    double variance(double count) const { return squares / count - sum / count * (sum / count); }
  };

  static std::span<std::byte> first_bytes(std::vector<std::byte>& buffer, uint64_t bytes) {
    if (buffer.size() < bytes) buffer.resize(bytes);
    return std::span(buffer).first(bytes);
  }

  // Rows of the tensor in the format that it came in.
  Status read_rows(const SourceTensor& source, const ShardTensor& tensor, const Rows& rows,
                   std::span<std::byte> out) {
    if (source.packed) return expand(source, rows, out);
    if (source.is_transposed) return read_columns(source, tensor, rows, out);
    const uint64_t row_bytes = out.size() / rows.count;
    return file_of(source).read_at(source.offset_bytes + rows.first * row_bytes, out);
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

  kernels::ThreadPool& pool() {
    if (!pool_) pool_.emplace(std::max(1U, std::thread::hardware_concurrency()));
    return *pool_;
  }

  // Row `row` of a run of `rows`, which came in `format`, as f32; there is room for all in
  // numbers_.
  std::span<float> as_f32(kernels::NumberFormat format, std::span<const std::byte> came,
                          uint64_t rows, size_t row) {
    const size_t width = numbers_.size() / rows;
    const std::span<float> numbers = std::span(numbers_).subspan(row * width, width);
    kernels::best_backend().to_f32(came.data() + row * (came.size() / rows), format, numbers.data(),
                                   width);
    return numbers;
  }

  // Of rows as they came; what is not finite counts as 0.
  void add_moments(kernels::NumberFormat format, uint64_t rows, std::span<const std::byte> came,
                   std::span<Moments> moments) {
    constexpr size_t kLeastInputs = 64;  // that are worth another thread
    const size_t width = moments.size();
    numbers_.resize(rows * width);
    pool().run(rows, 1, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) (void)take_nonfinite(as_f32(format, came, rows, r));
    });
    pool().run(width, kLeastInputs, [&](size_t begin, size_t end) {
      for (size_t r = 0; r < rows; ++r) {
        for (size_t i = begin; i < end; ++i) {
          const double number = numbers_[r * width + i];
          moments[i].sum += number;
          moments[i].squares += number * number;
        }
      }
    });
  }

  // What a model has compressed was seen when it was made.
  static bool is_kept_finite(kernels::NumberFormat format, std::span<const std::byte> numbers) {
    return kernels::is_compressed(format) || !has_nonfinite(format, numbers);
  }

  static Unexpected refused(const ShardTensor& tensor, const Rows& rows) {
    return Unexpected(ErrorCode::kData,
                      "tensor " + tensor.name + " has numbers that are infinite or none (NaN), " +
                          "in rows " + std::to_string(rows.first) + " to " +
                          std::to_string(rows.first + rows.count - 1),
                      "get the checkpoint anew, it may be damaged; --allow-nonfinite keeps them");
  }

  // Of rows in the exact format of a packed form.
  static bool are_scales_finite(const ShardTensor& tensor, const Rows& rows,
                                std::span<const std::byte> data) {
    bool is_finite = true;
    for (uint64_t r = 0; r < rows.count; ++r) {
      const auto row = data.subspan(r * tensor.row_bytes, tensor.row_bytes);
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

  // On all cores; a row is compressed by itself, so that nothing depends on how they are divided.
  // Returns whether all are finite; what shares a scale with one that is not is NaN in `out`.
  bool compress(const SourceTensor& source, const ShardTensor& tensor, const Rows& rows,
                std::span<const std::byte> came, std::span<std::byte> out) {
    const kernels::Backend& cpu = kernels::best_backend();
    const uint64_t width = tensor.shape.back();
    std::atomic<bool> is_finite = true;
    numbers_.resize(rows.count * width);
    pool().run(rows.count, 1, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        const std::span<float> numbers = as_f32(source.format, came, rows.count, r);
        char* const row = reinterpret_cast<char*>(out.data() + r * tensor.row_bytes);
        const std::vector<size_t> odd = take_nonfinite(numbers);
        if (tensor.outliers.empty()) {
          cpu.compress_row(tensor.format, numbers.data(), width, row);
        } else {
          kernels::compress_row_with_outliers(cpu.compress_row, tensor.format, tensor.outliers,
                                              numbers, row);
        }
        for (const size_t number : odd) kernels::spoil(tensor.format, row, width, number);
        if (!odd.empty()) is_finite = false;
      }
    });
    return is_finite;
  }

  const Checkpoint& checkpoint_;
  std::optional<kernels::ThreadPool> pool_;
  std::vector<float> numbers_;
  std::vector<std::byte> came_;
  std::vector<std::byte> stored_;
  std::vector<std::byte> column_;
};

// Calls visit(block, its checksum) for each block of a run.
template <typename Visit>
void hash_blocks(const ShardTensor& tensor, const Run& run, Visit visit) {
  const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
  uint64_t block = run.first_block;
  for (size_t at = 0; at < run.data.size(); at += block_bytes, ++block) {
    visit(block, xxh3(run.data.subspan(at, std::min<size_t>(block_bytes, run.data.size() - at))));
  }
}

// The gaps that pads fill read as zero anyway in a new file; writing them keeps the file free of
// holes, which some tools copy badly.
Status write_pads(DiskFile& file, const ShardLayout& layout) {
  const std::vector<std::byte> zeros(kPageBytes);
  for (const TensorRecord& record : layout.records) {
    if (!record.name.starts_with("pad.")) continue;
    AIRLLM_TRY_VOID(file.write_at(layout.header.size() + record.begin,
                                  std::span(zeros).first(record.end - record.begin)));
  }
  return {};
}

// The stage's tensors as they lie in the checkpoint's files, without checksums.
std::vector<ShardTensor> tensors_in_place(const Checkpoint& checkpoint, size_t stage) {
  const std::vector<SourceTensor>& sources = checkpoint.tensors[stage];
  std::vector<ShardTensor> out;
  for (size_t i = 0; i < sources.size(); ++i) {
    out.push_back(shard_tensor(checkpoint.stages[stage].tensors[i], sources[i].format));
    out.back().file = sources[i].file;
    out.back().offset_bytes = sources[i].offset_bytes;
  }
  return out;
}

std::string index_of(const Checkpoint& checkpoint, size_t stage,
                     const std::vector<ShardTensor>& tensors) {
  std::vector<std::string> files;
  for (size_t i = 1; i < checkpoint.sources.size(); ++i) {
    files.push_back(checkpoint.sources[i].name);
  }
  return index_text(checkpoint.stages[stage].shard_name, tensors, files);
}

}  // namespace

ShardLayout layout_of(const Checkpoint& checkpoint, size_t stage) {
  std::vector<kernels::NumberFormat> formats;
  std::vector<size_t> outliers;
  for (const SourceTensor& tensor : checkpoint.tensors[stage]) {
    formats.push_back(tensor.stored_as);
    outliers.push_back(tensor.outliers);
  }
  return layout_shard(checkpoint.stages[stage], formats, outliers);
}

Result<ShardRecord> write_shard(Disk& disk, const std::string& path, const Checkpoint& checkpoint,
                                size_t stage, const AdvanceFn& advance) {
  ShardLayout layout = layout_of(checkpoint, stage);
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kCreate));
  AIRLLM_TRY_VOID(file->write_at(0, std::as_bytes(std::span(layout.header))));
  AIRLLM_TRY_VOID(write_pads(*file, layout));
  BlockReader reader(checkpoint);
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const SourceTensor& source = checkpoint.tensors[stage][i];
    ShardTensor& tensor = layout.tensors[i];
    if (source.outliers > 0) {
      AIRLLM_TRY_VOID(reader.find_outliers(source, tensor, advance));
    }
    const auto copy = [&](const Run& run) -> Status {
      hash_blocks(tensor, run,
                  [&](uint64_t block, uint64_t sum) { tensor.block_checksums[block] = sum; });
      AIRLLM_TRY_VOID(file->write_at(tensor.offset_bytes + run.offset_bytes, run.data));
      return advance(run.data.size());
    };
    AIRLLM_TRY_VOID(reader.read(source, tensor, copy));
  }
  const std::string table = checksum_table(layout.tensors);
  AIRLLM_TRY_VOID(file->write_at(layout.checksums_offset, std::as_bytes(std::span(table))));
  const std::string outliers = outlier_table(layout.tensors);
  AIRLLM_TRY_VOID(file->write_at(layout.outliers_offset, std::as_bytes(std::span(outliers))));
  AIRLLM_TRY_VOID(file->sync());
  Hasher hasher;
  hasher.update(layout.header);
  hasher.update(outliers);
  hasher.update(table);
  return ShardRecord{path.substr(path.rfind('/') + 1), layout.file_bytes, hasher.digest()};
}

uint64_t index_bytes(const Checkpoint& checkpoint, size_t stage) {
  return index_of(checkpoint, stage, tensors_in_place(checkpoint, stage)).size();
}

Result<ShardRecord> write_index(Disk& disk, const std::string& path, const Checkpoint& checkpoint,
                                size_t stage, const AdvanceFn& advance) {
  std::vector<ShardTensor> tensors = tensors_in_place(checkpoint, stage);
  BlockReader reader(checkpoint);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto hash = [&](const Run& run) -> Status {
      hash_blocks(tensors[i], run,
                  [&](uint64_t block, uint64_t sum) { tensors[i].block_checksums[block] = sum; });
      return advance(run.data.size());
    };
    AIRLLM_TRY_VOID(reader.read(checkpoint.tensors[stage][i], tensors[i], hash));
  }
  const std::string text = index_of(checkpoint, stage, tensors);
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kCreate));
  AIRLLM_TRY_VOID(file->write_at(0, std::as_bytes(std::span(text))));
  AIRLLM_TRY_VOID(file->sync());
  return ShardRecord{path.substr(path.rfind('/') + 1), text.size(), xxh3(text)};
}

Result<std::string> find_difference(const Checkpoint& checkpoint, size_t stage, const Shard& shard,
                                    const AdvanceFn& advance) {
  BlockReader reader(checkpoint);
  for (size_t i = 0; i < shard.tensors.size(); ++i) {
    const SourceTensor& source = checkpoint.tensors[stage][i];
    const ShardTensor& tensor = shard.tensors[i];
    if (source.stored_as != tensor.format) return tensor.name;
    if (source.outliers != tensor.outliers.size()) return tensor.name;
    const bool is_there = tensor.file == source.file && tensor.offset_bytes == source.offset_bytes;
    if (shard.in_place && !is_there) return tensor.name;
    bool differs = false;
    const auto compare = [&](const Run& run) -> Status {
      hash_blocks(tensor, run, [&](uint64_t block, uint64_t sum) {
        differs = differs || tensor.block_checksums[block] != sum;
      });
      return advance(run.data.size());
    };
    AIRLLM_TRY_VOID(reader.read(source, tensor, compare));
    if (differs) return tensor.name;
  }
  return std::string();
}

}  // namespace airllm::store

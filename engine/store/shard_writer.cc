#include "engine/store/shard_writer.h"

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "base/units.h"
#include "engine/store/hash.h"
#include "engine/store/io_buffer.h"
#include "engine/store/shard_index.h"

namespace airllm::store {
namespace {

// Calls visit(block, its checksum) for each block of a run.
template <typename Visit>
void hash_blocks(const ShardTensor& tensor, const Run& run, Visit visit) {
  const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
  uint64_t block = run.first_block;
  for (size_t at = 0; at < run.data.size(); at += block_bytes, ++block) {
    visit(block, xxh3(run.data.subspan(at, std::min<size_t>(block_bytes, run.data.size() - at))));
  }
}

void keep_checksums(ShardTensor& tensor, const Run& run) {
  hash_blocks(tensor, run,
              [&](uint64_t block, uint64_t sum) { tensor.block_checksums[block] = sum; });
}

// A new file that is written from its beginning to its end, in long pieces.
class SequentialFile {
 public:
  // Usable once.
  Status create(Disk& disk, const std::string& path) {
    AIRLLM_TRY(file_, disk.open(path, OpenMode::kCreateDirect));
    AIRLLM_TRY_VOID(piece_.reserve(kPieceBytes));
    return {};
  }

  // What lies before `offset_bytes` and was not given is zero.
  Status put(uint64_t offset_bytes, std::span<const std::byte> data) {
    AIRLLM_TRY_VOID(fill_up_to(offset_bytes));
    while (!data.empty()) {
      const std::span<const std::byte> part = data.first(std::min(data.size(), room().size()));
      std::copy(part.begin(), part.end(), room().begin());
      AIRLLM_TRY_VOID(grow(part.size()));
      data = data.subspan(part.size());
    }
    return {};
  }
  Status put(uint64_t offset_bytes, std::string_view text) {
    return put(offset_bytes, std::as_bytes(std::span(text)));
  }

  // Writes what is left; the caller syncs the file.
  Result<std::unique_ptr<DiskFile>> finish() {
    AIRLLM_TRY_VOID(write_piece());
    return std::move(file_);
  }

 private:
  static constexpr uint64_t kPieceBytes = 4 * kMiB;

  std::span<std::byte> room() const { return piece_.memory().first(kPieceBytes).subspan(filled_); }

  Status grow(uint64_t bytes) {
    filled_ += bytes;
    if (filled_ < kPieceBytes) return {};
    return write_piece();
  }

  Status write_piece() {
    if (filled_ == 0) return {};
    AIRLLM_TRY_VOID(file_->write_at(written_, piece_.memory().first(filled_)));
    written_ += filled_;
    filled_ = 0;
    return {};
  }

  Status fill_up_to(uint64_t offset_bytes) {
    AIRLLM_CHECK(offset_bytes >= written_ + filled_);
    while (written_ + filled_ < offset_bytes) {
      const uint64_t gap = std::min<uint64_t>(offset_bytes - written_ - filled_, room().size());
      std::fill_n(room().begin(), gap, std::byte{0});
      AIRLLM_TRY_VOID(grow(gap));
    }
    return {};
  }

  std::unique_ptr<DiskFile> file_;
  IoBuffer piece_;
  uint64_t written_ = 0;
  uint64_t filled_ = 0;  // of the piece
};

// Syncs files one after another while others are written.
class Finisher {
 public:
  explicit Finisher(const WrittenFn& written) : written_(written) {}

  // Returns what became of the file before.
  Status start(std::unique_ptr<DiskFile> file, ShardRecord record) {
    AIRLLM_TRY_VOID(wait());
    last_ = std::async(std::launch::async,
                       [this, file = std::move(file), record = std::move(record)]() -> Status {
                         AIRLLM_TRY_VOID(file->sync());
                         return written_(record);
                       });
    return {};
  }

  Status wait() { return last_.valid() ? last_.get() : Status(); }

 private:
  const WrittenFn& written_;
  std::future<Status> last_;
};

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// Makes a file of each stage.
class FilesTaker : public RunTaker {
 public:
  FilesTaker(Disk& disk, const PathFn& path, const Checkpoint& checkpoint, Finisher& finisher)
      : disk_(disk), path_(path), checkpoint_(checkpoint), finisher_(finisher) {}

 protected:
  Disk& disk_;
  const PathFn& path_;
  const Checkpoint& checkpoint_;
  Finisher& finisher_;
  size_t stage_ = 0;
};

class ShardsTaker : public FilesTaker {
 public:
  using FilesTaker::FilesTaker;

  Status begin(size_t stage) override {
    stage_ = stage;
    layout_ = layout_of(checkpoint_, stage);
    file_ = std::make_unique<SequentialFile>();
    AIRLLM_TRY_VOID(file_->create(disk_, path_(stage)));
    return file_->put(0, layout_.header);
  }

  Status take(const Run& run) override {
    ShardTensor& tensor = layout_.tensors[run.tensor];
    tensor.outliers.assign(run.outliers.begin(), run.outliers.end());
    keep_checksums(tensor, run);
    return file_->put(tensor.offset_bytes + run.offset_bytes, run.data);
  }

  Status end() override {
    const std::string table = checksum_table(layout_.tensors);
    const std::string outliers = outlier_table(layout_.tensors);
    if (!outliers.empty()) AIRLLM_TRY_VOID(file_->put(layout_.outliers_offset, outliers));
    AIRLLM_TRY_VOID(file_->put(layout_.checksums_offset, table));
    Hasher hasher;
    hasher.update(layout_.header);
    hasher.update(outliers);
    hasher.update(table);
    AIRLLM_TRY(std::unique_ptr<DiskFile> file, file_->finish());
    return finisher_.start(std::move(file),
                           {file_name(path_(stage_)), layout_.file_bytes, hasher.digest()});
  }

 private:
  ShardLayout layout_;
  std::unique_ptr<SequentialFile> file_;
};

// The stage's tensors as they lie in the checkpoint's files, without checksums.
std::vector<ShardTensor> tensors_in_place(const Checkpoint& checkpoint, size_t stage) {
  const std::vector<SourceTensor>& sources = checkpoint.tensors[stage];
  std::vector<ShardTensor> out = stored_tensors(checkpoint, stage);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i].file = sources[i].file;
    out[i].offset_bytes = sources[i].offset_bytes;
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

class IndexesTaker : public FilesTaker {
 public:
  using FilesTaker::FilesTaker;

  Status begin(size_t stage) override {
    stage_ = stage;
    tensors_ = tensors_in_place(checkpoint_, stage);
    return {};
  }

  Status take(const Run& run) override {
    keep_checksums(tensors_[run.tensor], run);
    return {};
  }

  Status end() override {
    const std::string path = path_(stage_);
    const std::string text = index_of(checkpoint_, stage_, tensors_);
    AIRLLM_TRY(std::unique_ptr<DiskFile> file, disk_.open(path, OpenMode::kCreate));
    AIRLLM_TRY_VOID(file->write_at(0, std::as_bytes(std::span(text))));
    return finisher_.start(std::move(file), {file_name(path), text.size(), xxh3(text)});
  }

 private:
  std::vector<ShardTensor> tensors_;
};

// Compares checksums.
class DifferenceTaker : public RunTaker {
 public:
  explicit DifferenceTaker(const Shard& shard) : shard_(shard) {}

  Status begin(size_t) override { return {}; }
  Status take(const Run& run) override {
    const ShardTensor& tensor = shard_.tensors[run.tensor];
    hash_blocks(tensor, run, [&](uint64_t block, uint64_t sum) {
      if (first_.empty() && tensor.block_checksums[block] != sum) first_ = tensor.name;
    });
    return {};
  }
  Status end() override { return {}; }

  const std::string& first() const { return first_; }

 private:
  const Shard& shard_;
  std::string first_;  // tensor that differs
};

template <typename Taker>
Status write_stages(Disk& disk, const PathFn& path, const Checkpoint& checkpoint, StageRange stages,
                    const WrittenFn& written, const AdvanceFn& advance) {
  Finisher finisher(written);
  Taker taker(disk, path, checkpoint, finisher);
  AIRLLM_TRY_VOID(stream_runs(checkpoint, stages, taker, advance));
  return finisher.wait();
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

Status write_shards(Disk& disk, const PathFn& path, const Checkpoint& checkpoint, StageRange stages,
                    const WrittenFn& written, const AdvanceFn& advance) {
  return write_stages<ShardsTaker>(disk, path, checkpoint, stages, written, advance);
}

uint64_t index_bytes(const Checkpoint& checkpoint, size_t stage) {
  return index_of(checkpoint, stage, tensors_in_place(checkpoint, stage)).size();
}

Status write_indexes(Disk& disk, const PathFn& path, const Checkpoint& checkpoint,
                     StageRange stages, const WrittenFn& written, const AdvanceFn& advance) {
  return write_stages<IndexesTaker>(disk, path, checkpoint, stages, written, advance);
}

Result<std::string> find_difference(const Checkpoint& checkpoint, size_t stage, const Shard& shard,
                                    const AdvanceFn& advance) {
  for (size_t i = 0; i < shard.tensors.size(); ++i) {
    const SourceTensor& source = checkpoint.tensors[stage][i];
    const ShardTensor& tensor = shard.tensors[i];
    if (source.stored_as != tensor.format) return tensor.name;
    if (source.outliers != tensor.outliers.size()) return tensor.name;
    const bool is_there = tensor.file == source.file && tensor.offset_bytes == source.offset_bytes;
    if (shard.in_place && !is_there) return tensor.name;
  }
  DifferenceTaker taker(shard);
  AIRLLM_TRY_VOID(stream_runs(checkpoint, {stage, stage + 1}, taker, advance));
  return taker.first();
}

}  // namespace airllm::store

#include "engine/store/split.h"

#include <algorithm>
#include <ctime>
#include <numeric>
#include <set>

#include "base/json.h"
#include "base/units.h"
#include "base/utf8.h"
#include "engine/model/description.h"
#include "engine/store/checkpoint.h"
#include "engine/store/hash.h"
#include "engine/store/journal.h"
#include "engine/store/manifest.h"
#include "engine/store/owner.h"
#include "engine/store/shard_index.h"
#include "engine/store/shard_writer.h"

namespace airllm::store {
namespace {

constexpr uint64_t kCopyBytes = kMiB;
// For the manifest, the journal and the file system's own book-keeping.
constexpr uint64_t kReserveBytes = kMiB;
constexpr const char* kGoesOn = "the same command goes on where it stopped";

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Json result_json(const Manifest& manifest, bool unchanged) {
  return Json{{"name", manifest.name},
              {"bytes", manifest.bytes()},
              {"elsewhere_bytes", manifest.bytes_elsewhere()},
              {"shards", manifest.shards.size()},
              {"in_place", manifest.in_place.has_value()},
              {"unchanged", unchanged}};
}

// Reads a small file in pieces; calls visit(offset, piece).
template <typename Visit>
Status read_pieces(const DiskFile& file, Visit visit) {
  AIRLLM_TRY(const uint64_t size, file.size_bytes());
  std::vector<std::byte> buffer(std::min(size, kCopyBytes));
  for (uint64_t at = 0; at < size; at += buffer.size()) {
    const auto piece = std::span(buffer).first(std::min<uint64_t>(buffer.size(), size - at));
    AIRLLM_TRY_VOID(file.read_at(at, piece));
    AIRLLM_TRY_VOID(visit(at, std::span<const std::byte>(piece)));
  }
  return {};
}

Result<FileRecord> hash_small_file(const SmallFile& small) {
  Hasher hasher;
  uint64_t bytes = 0;
  AIRLLM_TRY_VOID(read_pieces(*small.file, [&](uint64_t, std::span<const std::byte> piece) {
    hasher.update(piece);
    bytes += piece.size();
    return Status();
  }));
  return FileRecord{small.name, bytes, hasher.digest()};
}

class Splitter {
 public:
  Splitter(Disk& disk, Shelf& shelf, const engine::SplitRequest& request,
           const ProgressFn& progress, const std::stop_token& stop)
      : disk_(disk), shelf_(shelf), request_(request), progress_(progress), stop_(stop) {}

  Result<Json> run(Checkpoint checkpoint, const PromiseRoom& promise_room) {
    checkpoint_ = std::move(checkpoint);
    AIRLLM_TRY(compression_, parse_compression(request_.format));
    if (in_place()) AIRLLM_TRY_VOID(check_in_place());
    checkpoint_.allows_nonfinite = request_.allows_nonfinite;
    checkpoint_.memory_bytes = request_.memory_bytes;
    compress(checkpoint_, compression_);
    const std::string final_folder = shelf_.model(request_.name);
    const bool exists = disk_.exists(final_folder);
    if (exists && !request_.only_plan) return compare_with(final_folder);
    measure();
    AIRLLM_TRY(const uint64_t small_bytes, small_file_bytes());
    const uint64_t bytes = std::accumulate(shard_bytes_.begin(), shard_bytes_.end(), small_bytes);
    if (request_.only_plan) return plan_json(exists ? 0 : bytes);
    AIRLLM_TRY_VOID(promise_room(bytes));
    AIRLLM_TRY_VOID(begin(bytes));
    Status written = write_all();
    if (!written) {
      Error error = std::move(written).error();
      if (error.code == ErrorCode::kIo) {
        error.remedy += (error.remedy.empty() ? "" : ". ") + std::string(kGoesOn);
      }
      return Unexpected(std::move(error));
    }
    AIRLLM_TRY(const Manifest manifest, commit());
    return result_json(manifest, false);
  }

 private:
  uint64_t parameters() const {
    return model::count_parameters(checkpoint_.architecture, checkpoint_.stages).total;
  }

  bool in_place() const { return request_.in_place.has_value(); }
  std::string shard_file(size_t stage) const {
    return checkpoint_.stages[stage].shard_name + (in_place() ? kIndexSuffix : kShardSuffix);
  }
  Result<Shard> open_part(const std::string& path, size_t stage, const ShardRecord& record) const {
    return in_place()
               ? open_index(disk_, path, checkpoint_.stages[stage], record, checkpoint_.sources)
               : open_shard(disk_, path, checkpoint_.stages[stage], record);
  }
  Status check_in_place() const {
    if (!is_plain_absolute_path(*request_.in_place)) {
      return Unexpected(ErrorCode::kUsage,
                        "'" + escape_for_display(*request_.in_place, true) +
                            "' cannot be read in place: its path is not plain UTF-8 text",
                        "give the folder another name, or split it without --in-place");
    }
    if (!compression_.is_none()) {
      return Unexpected(ErrorCode::kUsage,
                        "weights that are read in place are used as they are: they cannot be " +
                            compression_text(compression_) + " as well",
                        "leave one of the two out");
    }
    return check_usable_in_place(checkpoint_);
  }

  // How long each part will be.
  void measure() {
    for (size_t i = 0; i < checkpoint_.stages.size(); ++i) {
      const ShardLayout layout = layout_of(checkpoint_, i);
      shard_bytes_.push_back(in_place() ? index_bytes(checkpoint_, i) : layout.file_bytes);
      weight_bytes_.push_back(layout.weight_bytes());
      total_ += layout.weight_bytes();
    }
  }

  // What a split would write and read, of which an earlier one may have done a part.
  Json plan_json(uint64_t bytes) const {
    uint64_t source_bytes = 0;
    for (size_t i = 1; i < checkpoint_.sources.size(); ++i) {
      source_bytes += checkpoint_.sources[i].bytes;
    }
    return Json{{"name", request_.name}, {"needs_bytes", bytes}, {"source_bytes", source_bytes}};
  }

  std::string shard_path(size_t stage) const {
    return folder_ + "/" + kShardsName + "/" + shard_file(stage);
  }

  Status advance(const char* stage, uint64_t bytes) {
    done_ += bytes;
    if (progress_) progress_(engine::Progress{stage, done_, total_, "bytes"});
    if (stop_.stop_requested()) {
      return Unexpected(ErrorCode::kCancelled, "split of " + request_.name + ": cancelled",
                        kGoesOn);
    }
    return {};
  }

  // ---- a model of this name is there already ----

  Unexpected taken(const std::string& why) const {
    return Unexpected(
        ErrorCode::kCannotCreate, "the model " + request_.name + " exists already and " + why,
        "choose another name with --name, or remove it with 'airllm rm " + request_.name + "'");
  }

  Result<Json> compare_with(const std::string& folder) {
    Result<Manifest> found = read_manifest(disk_, folder);
    if (!found) return taken("cannot be compared: " + found.error().message);
    Manifest manifest = std::move(found).value();
    if (manifest.in_place.has_value() != in_place()) {
      return taken(in_place() ? "holds its weights itself" : "reads its weights in place");
    }
    const auto same = [](const SourceRecord& a, const SourceRecord& b) {
      return a.name == b.name && a.bytes == b.bytes && a.hash == b.hash;
    };
    if (!std::equal(manifest.sources.begin(), manifest.sources.end(), checkpoint_.sources.begin(),
                    checkpoint_.sources.end(), same)) {
      const bool same_place = manifest.source_label == request_.source_label;
      return taken(same_place ? "was made from " + manifest.source_label +
                                    ", whose files have changed since"
                              : "was made from another source, " + manifest.source_label);
    }
    if (manifest.compression != compression_) {
      const std::string kept = compression_text(manifest.compression);
      return taken(manifest.compression.is_none() ? "has its weights as they came"
                                                  : "is compressed as " + kept);
    }
    AIRLLM_TRY_VOID(compare_small_files(manifest));
    if (manifest.sources == checkpoint_.sources && manifest.in_place == request_.in_place) {
      return result_json(manifest, true);
    }
    // Equal in size and header but not the same files: only the weights themselves can tell.
    AIRLLM_TRY_VOID(compare_weights(folder, manifest));
    manifest.sources = checkpoint_.sources;
    manifest.in_place = request_.in_place;
    AIRLLM_TRY_VOID(write_text_atomically(disk_, folder + "/" + kManifestName,
                                          dump_json(manifest_json(manifest)) + "\n"));
    return result_json(manifest, true);
  }

  Status compare_small_files(const Manifest& manifest) const {
    std::set<std::string> names;
    for (const SmallFile& small : checkpoint_.small_files) {
      AIRLLM_TRY(const FileRecord record, hash_small_file(small));
      names.insert(small.name);
      const auto at = std::find_if(manifest.files.begin(), manifest.files.end(),
                                   [&](const FileRecord& file) { return file.name == small.name; });
      if (at == manifest.files.end() || at->hash != record.hash || at->bytes != record.bytes) {
        return taken("its " + small.name + " differs from the source's");
      }
    }
    for (const FileRecord& file : manifest.files) {
      if (!names.contains(file.name)) return taken("has " + file.name + ", which the source lacks");
    }
    return {};
  }

  Status compare_weights(const std::string& folder, const Manifest& manifest) {
    if (manifest.shards.size() != checkpoint_.stages.size()) return taken("has other shards");
    for (const std::vector<SourceTensor>& tensors : checkpoint_.tensors) {
      const size_t stage = static_cast<size_t>(&tensors - checkpoint_.tensors.data());
      total_ += layout_of(checkpoint_, stage).weight_bytes();
    }
    for (size_t i = 0; i < manifest.shards.size(); ++i) {
      const std::string path = folder + "/" + kShardsName + "/" + manifest.shards[i].file;
      Result<Shard> shard = open_part(path, i, manifest.shards[i]);
      if (!shard) return taken("cannot be compared: " + shard.error().message);
      AIRLLM_TRY(const std::string tensor,
                 find_difference(checkpoint_, i, *shard,
                                 [this](uint64_t bytes) { return advance("check", bytes); }));
      if (!tensor.empty()) return taken("its tensor " + tensor + " differs from the source's");
    }
    return check_unchanged(checkpoint_);
  }

  // ---- a new model ----

  // A split that is refused leaves nothing behind but what an earlier try had finished.
  Status begin(uint64_t model_bytes) {
    Status status = prepare();
    if (status) status = check_room(model_bytes);
    if (!status && journal_.shards.empty()) (void)disk_.remove_tree(folder_);
    return status;
  }

  // Opens the folder of an earlier try at the same source, or an empty one.
  Status prepare() {
    folder_ = shelf_.incoming(request_.name);
    if (disk_.exists(folder_) && !resume()) AIRLLM_TRY_VOID(disk_.remove_tree(folder_));
    AIRLLM_TRY_VOID(disk_.make_directories(folder_ + "/" + kShardsName));
    AIRLLM_TRY_VOID(disk_.sync_directory(shelf_.incoming()));
    journal_.name = request_.name;
    journal_.source_label = request_.source_label;
    journal_.family = checkpoint_.architecture.family;
    journal_.dtype = checkpoint_.dtype();
    journal_.compression = compression_;
    journal_.started = now_utc();
    journal_.layers = checkpoint_.architecture.layers;
    journal_.parameters = parameters();
    journal_.total_bytes = total_;
    journal_.sources = checkpoint_.sources;
    AIRLLM_TRY_VOID(write_journal(disk_, folder_, journal_));
    return drop_unfinished();
  }

  // Takes over the finished shards of an earlier try, if it was at the same source.
  bool resume() {
    Result<Journal> found = read_journal(disk_, folder_);
    if (!found || found->name != request_.name || found->sources != checkpoint_.sources ||
        found->compression != compression_) {
      return false;
    }
    for (size_t i = 0; i < found->shards.size() && i < checkpoint_.stages.size(); ++i) {
      const ShardRecord& record = found->shards[i];
      if (record.file != shard_file(i) || record.bytes != shard_bytes_[i]) break;
      if (!open_part(shard_path(i), i, record)) break;
      journal_.shards.push_back(record);
      done_ += weight_bytes_[i];
    }
    return true;
  }

  // What a crash left half-written takes room that the check of free space must see.
  Status drop_unfinished() {
    const std::string shards = folder_ + "/" + kShardsName;
    AIRLLM_TRY(const std::vector<DirEntry> entries, disk_.list(shards));
    for (const DirEntry& entry : entries) {
      const bool finished =
          std::any_of(journal_.shards.begin(), journal_.shards.end(),
                      [&](const ShardRecord& shard) { return shard.file == entry.name; });
      if (!finished) AIRLLM_TRY_VOID(disk_.remove_tree(shards + "/" + entry.name));
    }
    return {};
  }

  Result<uint64_t> small_file_bytes() const {
    uint64_t sum = 0;
    for (const SmallFile& small : checkpoint_.small_files) {
      AIRLLM_TRY(const uint64_t size, small.file->size_bytes());
      sum += size;
    }
    return sum;
  }

  Status check_room(uint64_t model_bytes) {
    uint64_t needed = model_bytes + kReserveBytes;
    for (const ShardRecord& done : journal_.shards) needed -= done.bytes;
    AIRLLM_TRY(const uint64_t free, disk_.free_bytes(folder_));
    if (free >= needed) return {};
    return Unexpected(ErrorCode::kIo,
                      "the split needs " + format_size(needed) + " (" + std::to_string(needed) +
                          " bytes), but only " + format_size(free) + " (" + std::to_string(free) +
                          " bytes) are free on the disk of " + shelf_.root(),
                      "free some disk space, or use a store on another disk");
  }

  Status write_all() {
    AIRLLM_TRY_VOID(advance("split", 0));
    if (Status written = write_parts(); !written) {
      // A full disk should not stay full for shards that must be written anew anyway.
      (void)drop_unfinished();
      return written;
    }
    return copy_small_files();
  }

  Status write_parts() {
    const StageRange stages{journal_.shards.size(), checkpoint_.stages.size()};
    const auto path = [this](size_t stage) { return shard_path(stage); };
    const auto keep = [this](const ShardRecord& record) -> Status {
      AIRLLM_TRY_VOID(disk_.sync_directory(folder_ + "/" + kShardsName));
      AIRLLM_TRY_VOID(check_unchanged(checkpoint_));
      journal_.shards.push_back(record);
      return write_journal(disk_, folder_, journal_);
    };
    const auto advance = [this](uint64_t bytes) { return this->advance("split", bytes); };
    return in_place() ? write_indexes(disk_, path, checkpoint_, stages, keep, advance)
                      : write_shards(disk_, path, checkpoint_, stages, keep, advance);
  }

  Status copy_small_files() {
    for (const SmallFile& small : checkpoint_.small_files) {
      const std::string path = folder_ + "/" + small.name;
      AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk_.open(path, OpenMode::kCreate));
      FileRecord record{small.name, 0, 0};
      Hasher hasher;
      AIRLLM_TRY_VOID(
          read_pieces(*small.file, [&](uint64_t offset, std::span<const std::byte> piece) {
            hasher.update(piece);
            record.bytes += piece.size();
            return file->write_at(offset, piece);
          }));
      AIRLLM_TRY_VOID(file->sync());
      record.hash = hasher.digest();
      files_.push_back(std::move(record));
    }
    return check_unchanged(checkpoint_);
  }

  Result<Manifest> commit() {
    Manifest manifest;
    manifest.name = request_.name;
    manifest.created = now_utc();
    manifest.family = checkpoint_.architecture.family;
    manifest.dtype = checkpoint_.dtype();
    manifest.compression = compression_;
    manifest.layers = checkpoint_.architecture.layers;
    manifest.parameters = parameters();
    manifest.bundled = checkpoint_.bundled();
    manifest.source_label = request_.source_label;
    manifest.sources = checkpoint_.sources;
    manifest.shards = journal_.shards;
    manifest.files = files_;
    manifest.in_place = request_.in_place;
    if (request_.owner) AIRLLM_TRY_VOID(write_owner(disk_, folder_, *request_.owner));
    AIRLLM_TRY_VOID(write_text_atomically(disk_, folder_ + "/" + kManifestName,
                                          dump_json(manifest_json(manifest)) + "\n"));
    AIRLLM_TRY_VOID(shelf_.take_in(folder_, request_.name));
    // The journal goes last: until the rename is on the disk, it is what makes the work resumable.
    (void)disk_.remove_file(shelf_.model(request_.name) + "/" + kJournalName);
    return manifest;
  }

  Disk& disk_;
  Shelf& shelf_;
  const engine::SplitRequest& request_;
  const ProgressFn& progress_;
  const std::stop_token& stop_;
  Checkpoint checkpoint_;
  Compression compression_;
  std::string folder_;  // in incoming/
  Journal journal_;
  std::vector<uint64_t> shard_bytes_;   // per stage, of the file
  std::vector<uint64_t> weight_bytes_;  // per stage
  std::vector<FileRecord> files_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

}  // namespace

Result<Json> split_checkpoint(Disk& disk, Shelf& shelf, const engine::SplitRequest& request,
                              const std::function<Result<Checkpoint>()>& open_source,
                              const PromiseRoom& promise_room, const ProgressFn& progress,
                              const std::stop_token& stop) {
  AIRLLM_TRY(Checkpoint checkpoint, open_source());
  return Splitter(disk, shelf, request, progress, stop).run(std::move(checkpoint), promise_room);
}

}  // namespace airllm::store

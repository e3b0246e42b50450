#include "engine/store/store.h"

#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "base/log.h"
#include "base/utf8.h"
#include "engine/store/hash.h"
#include "engine/store/journal.h"
#include "engine/store/manifest.h"
#include "engine/store/names.h"
#include "engine/store/shard_layout.h"
#include "engine/store/split.h"
#include "engine/store/store_paths.h"
#include "engine/store/verify.h"

namespace airllm::store {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{128} << 20;
constexpr int kMaxNameParts = 64;
constexpr const char* kTrashPrefix = ".trash-";

std::string join_quoted(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    out += (i == 0 ? "'" : i + 1 == names.size() ? " or '" : ", '") + names[i] + "'";
  }
  return out;
}

Status check_name(const std::string& name) {
  if (is_valid_model_name(name)) return {};
  return Unexpected(
      ErrorCode::kUsage,
      "'" + escape_for_display(name.substr(0, 200), true) + "' cannot be the name of a model",
      "names are 1 to 128 letters, digits, '.', '_', '-', and '/' between parts; no "
      "part begins with a dot");
}

ModelSummary summary_of(const Manifest& manifest, const std::string& name) {
  ModelSummary out;
  out.name = name;
  out.bundled = manifest.bundled;
  out.bytes = manifest.bytes();
  out.parameters = manifest.parameters;
  out.family = manifest.family;
  out.dtype = manifest.dtype;
  out.layers = manifest.layers;
  out.created = manifest.created;
  out.source = manifest.source_label;
  return out;
}

ModelSummary summary_of(const Journal& journal) {
  ModelSummary out;
  out.name = journal.name;
  for (const ShardRecord& shard : journal.shards) out.bytes += shard.bytes;
  out.parameters = journal.parameters;
  out.family = journal.family;
  out.dtype = journal.dtype;
  out.layers = journal.layers;
  out.created = journal.started;
  out.source = journal.source_label;
  out.complete = false;
  return out;
}

Json architecture_json(const model::Architecture& a) {
  Json out{{"family", a.family},
           {"layers", a.layers},
           {"hidden", a.hidden},
           {"heads", a.heads},
           {"kv_heads", a.kv_heads},
           {"head_dim", a.head_dim},
           {"intermediate", a.intermediate},
           {"vocabulary", a.vocabulary},
           {"context", a.context},
           {"norm_epsilon", a.norm_epsilon},
           {"rope_theta", a.rope_theta},
           {"tied_head", a.tied_head},
           {"end_tokens", a.end_tokens}};
  out["begin_token"] = a.begin_token ? Json(*a.begin_token) : Json(nullptr);
  if (a.rope_scaling.kind == model::RopeScaling::Kind::kLlama3) {
    out["rope_scaling"] = Json{{"kind", "llama3"},
                               {"factor", a.rope_scaling.factor},
                               {"low_frequency_factor", a.rope_scaling.low_frequency_factor},
                               {"high_frequency_factor", a.rope_scaling.high_frequency_factor},
                               {"original_context", a.rope_scaling.original_context}};
  }
  return out;
}

class StoreImpl : public Store {
 public:
  StoreImpl(const std::string& directory, Disk& disk) : disk_(disk), paths_{directory} {}

  Status open() {
    AIRLLM_TRY_VOID(
        with_remedy(disk_.make_directories(paths_.root), "Choose another store with --store."));
    Result<std::unique_ptr<DiskLock>> lock = disk_.lock(paths_.lock());
    if (!lock) return lock_error(std::move(lock).error());
    lock_ = std::move(lock).value();
    AIRLLM_TRY_VOID(disk_.make_directories(paths_.models()));
    AIRLLM_TRY_VOID(disk_.make_directories(paths_.incoming()));
    AIRLLM_TRY_VOID(clean_incoming());
    return clean_models();
  }

  Result<std::vector<ModelSummary>> list() override {
    AIRLLM_TRY(const std::vector<std::string> names, model_names());
    std::vector<ModelSummary> out;
    for (const std::string& name : names) {
      const Result<Manifest> manifest = load_manifest(name);
      if (manifest) {
        out.push_back(summary_of(*manifest, name));
      } else {
        ModelSummary broken;
        broken.name = name;
        broken.problem = manifest.error().message;
        out.push_back(std::move(broken));
      }
    }
    for (const Journal& journal : unfinished()) {
      if (std::find(names.begin(), names.end(), journal.name) == names.end()) {
        out.push_back(summary_of(journal));
      }
    }
    std::sort(out.begin(), out.end(),
              [](const ModelSummary& a, const ModelSummary& b) { return a.name < b.name; });
    return out;
  }

  Result<StoredModel> open_model(const std::string& name) override {
    AIRLLM_TRY_VOID(check_exists(name));
    AIRLLM_TRY(const Manifest manifest, load_manifest(name));
    StoredModel out;
    out.name = name;
    AIRLLM_TRY_VOID(read_files(manifest, out));
    AIRLLM_TRY(out.architecture,
               model::parse_config(out.config_json, paths_.model(name) + "/config.json"));
    AIRLLM_TRY(out.shards, open_shards(manifest, out.architecture));
    return out;
  }

  Result<Json> show(const std::string& name) override {
    AIRLLM_TRY_VOID(check_exists(name));
    AIRLLM_TRY(const Manifest manifest, load_manifest(name));
    StoredModel model;
    AIRLLM_TRY_VOID(read_files(manifest, model));
    AIRLLM_TRY(const model::Architecture architecture,
               model::parse_config(model.config_json, paths_.model(name) + "/config.json"));
    Json manifest_part = manifest_json(manifest);
    return Json{{"name", name},
                {"complete", true},
                {"bundled", manifest.bundled},
                {"bytes", manifest.bytes()},
                {"created", manifest.created},
                {"family", manifest.family},
                {"dtype", manifest.dtype},
                {"layers", manifest.layers},
                {"parameters", manifest.parameters},
                {"source", manifest.source_label},
                {"path", paths_.model(name)},
                {"has_tokenizer", model.tokenizer_json.has_value()},
                {"architecture", architecture_json(architecture)},
                {"shards", std::move(manifest_part["shards"])},
                {"files", std::move(manifest_part["files"])}};
  }

  Status remove(const std::string& name) override {
    AIRLLM_TRY_VOID(check_name(name));
    const Busy busy(*this, name);
    AIRLLM_TRY_VOID(busy.status());
    bool found = false;
    for (const std::string& folder : {paths_.model(name), paths_.incoming(name)}) {
      // A folder above other models, such as an organisation's, is no model.
      const bool is_model = disk_.exists(folder + "/" + kManifestName) ||
                            (folder == paths_.incoming(name) && disk_.exists(folder));
      if (!is_model) continue;
      AIRLLM_TRY_VOID(discard(folder));
      found = true;
    }
    if (!found) return unknown(name);
    return drop_empty_parents(name);
  }

  Result<Json> split(const engine::SplitRequest& request, const ProgressFn& progress,
                     std::stop_token stop) override {
    AIRLLM_TRY_VOID(check_name(request.name));
    const Busy busy(*this, request.name);
    AIRLLM_TRY_VOID(busy.status());
    AIRLLM_TRY_VOID(check_nesting(request.name));
    return split_checkpoint(disk_, paths_, request, progress, stop);
  }

  Result<Json> verify(const std::string& name, const ProgressFn& progress,
                      std::stop_token stop) override {
    AIRLLM_TRY(const StoredModel model, open_model(name));
    AIRLLM_TRY(const Manifest manifest, load_manifest(name));
    uint64_t done = 0;
    const auto advance = [&](uint64_t bytes) -> Status {
      done += bytes;
      if (progress) progress(engine::Progress{"verify", done, manifest.bytes(), "bytes"});
      if (stop.stop_requested()) {
        return Unexpected(ErrorCode::kCancelled, "verify of " + name + ": cancelled");
      }
      return {};
    };
    for (const FileRecord& file : manifest.files) {
      AIRLLM_TRY_VOID(read_file(name, file));
      AIRLLM_TRY_VOID(advance(file.bytes));
    }
    for (size_t i = 0; i < model.shards.size(); ++i) {
      AIRLLM_TRY_VOID(verify_shard(model.shards[i], manifest.shards[i].hash, advance));
    }
    return Json{{"name", name},
                {"shards", manifest.shards.size()},
                {"bytes", manifest.bytes()},
                {"ok", true}};
  }

  Result<ReadSpeed> measure_read_speed(std::stop_token stop) override {
    AIRLLM_TRY(const std::vector<ModelSummary> models, list());
    std::string folder;
    uint64_t most = 0;
    for (const ModelSummary& model : models) {
      if (!model.complete || !model.problem.empty() || model.bytes <= most) continue;
      most = model.bytes;
      folder = paths_.model(model.name) + "/" + kShardsName;
    }
    return store::measure_read_speed(disk_, folder, paths_.root, std::move(stop));
  }

 private:
  // Keeps others from working on the same model's folders.
  class Busy {
   public:
    Busy(StoreImpl& store, const std::string& name) : store_(store), name_(name) {
      const std::lock_guard guard(store_.mutex_);
      taken_ = store_.busy_.insert(name).second;
    }
    ~Busy() {
      if (!taken_) return;
      const std::lock_guard guard(store_.mutex_);
      store_.busy_.erase(name_);
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

    Status status() const {
      if (taken_) return {};
      return Unexpected(ErrorCode::kTemporary,
                        "the model " + name_ + " is being made or removed by another job",
                        "wait for that job ('airllm ps' shows it), or cancel it");
    }

   private:
    StoreImpl& store_;
    std::string name_;
    bool taken_ = false;
  };

  Status lock_error(Error error) const {
    if (error.code == ErrorCode::kTemporary) {
      error.message = "the store " + paths_.root + " is in use: " + error.message;
      error.remedy = "stop the other airllmd, or use another store with --store";
    }
    return Unexpected(std::move(error));
  }

  // ---- folders ----

  // A crash leaves trash, and folders without a journal that could go on.
  Status clean_incoming() {
    AIRLLM_TRY(const std::vector<DirEntry> entries, disk_.list(paths_.incoming()));
    for (const DirEntry& entry : entries) {
      const std::string path = paths_.incoming() + "/" + entry.name;
      const Result<Journal> journal = read_journal(disk_, path);
      if (journal && paths_.incoming(journal->name) == path) continue;
      if (!journal && journal.error().code == ErrorCode::kIo) continue;
      log::info("store: dropping {}, which cannot be resumed", path);
      AIRLLM_TRY_VOID(disk_.remove_tree(path));
    }
    return {};
  }

  // A crash right behind a split's rename leaves its journal in the model.
  Status clean_models() {
    AIRLLM_TRY(const std::vector<std::string> names, model_names());
    for (const std::string& name : names) {
      const std::string journal = paths_.model(name) + "/" + kJournalName;
      if (disk_.exists(journal)) AIRLLM_TRY_VOID(disk_.remove_file(journal));
    }
    return {};
  }

  Result<std::vector<std::string>> model_names() {
    std::vector<std::string> out;
    Status status = collect_models("", 0, out);
    if (status) return out;
    Error error = std::move(status).error();
    error.message = "cannot list the store: " + error.message;
    error.remedy = "See whether its disk is there and may be read; then restart the daemon.";
    return Unexpected(std::move(error));
  }

  Status collect_models(const std::string& prefix, int depth, std::vector<std::string>& out) {
    AIRLLM_TRY(const std::vector<DirEntry> entries,
               disk_.list(prefix.empty() ? paths_.models() : paths_.model(prefix)));
    for (const DirEntry& entry : entries) {
      const std::string name = prefix.empty() ? entry.name : prefix + "/" + entry.name;
      if (!entry.is_directory || !is_valid_model_name(name)) continue;
      if (disk_.exists(paths_.model(name) + "/" + kManifestName)) {
        out.push_back(name);
      } else if (depth < kMaxNameParts) {
        AIRLLM_TRY_VOID(collect_models(name, depth + 1, out));
      }
    }
    return {};
  }

  std::vector<Journal> unfinished() {
    std::vector<Journal> out;
    Result<std::vector<DirEntry>> entries = disk_.list(paths_.incoming());
    if (!entries) return out;
    for (const DirEntry& entry : *entries) {
      if (!entry.is_directory || entry.name.starts_with('.')) continue;
      Result<Journal> journal = read_journal(disk_, paths_.incoming() + "/" + entry.name);
      if (journal) out.push_back(std::move(journal).value());
    }
    return out;
  }

  // models/a and models/a/b cannot both be models.
  Status check_nesting(const std::string& name) {
    AIRLLM_TRY(const std::vector<std::string> names, model_names());
    for (const std::string& other : names) {
      if (other.starts_with(name + "/") || name.starts_with(other + "/")) {
        return Unexpected(ErrorCode::kCannotCreate,
                          "the name " + name + " cannot stand beside the model " + other,
                          "choose another name with --name");
      }
    }
    return {};
  }

  Status discard(const std::string& folder) {
    std::string trash;
    for (int i = 0; trash.empty() || disk_.exists(trash); ++i) {
      trash = paths_.incoming() + "/" + kTrashPrefix + std::to_string(::getpid()) + "-" +
              std::to_string(i);
    }
    AIRLLM_TRY_VOID(disk_.rename(folder, trash));
    AIRLLM_TRY_VOID(disk_.sync_directory(folder.substr(0, folder.rfind('/'))));
    return disk_.remove_tree(trash);
  }

  Status drop_empty_parents(std::string name) {
    for (size_t slash = name.rfind('/'); slash != name.npos; slash = name.rfind('/')) {
      name.resize(slash);
      const Result<std::vector<DirEntry>> entries = disk_.list(paths_.model(name));
      if (!entries || !entries->empty()) break;
      AIRLLM_TRY_VOID(disk_.remove_tree(paths_.model(name)));
    }
    return {};
  }

  // ---- models ----

  Unexpected unknown(const std::string& name) {
    const Result<std::vector<std::string>> names = model_names();
    if (!names) return Unexpected(names.error());
    const std::vector<std::string> near = near_names(name, *names);
    std::string remedy = "'airllm list' shows the models there are";
    if (names->empty()) remedy = "there is no model yet; 'airllm split DIR' makes one";
    if (!near.empty()) remedy = "did you mean " + join_quoted(near) + "?";
    return Unexpected(ErrorCode::kNoInput, "there is no model " + name, std::move(remedy));
  }

  Status check_exists(const std::string& name) {
    if (!is_valid_model_name(name)) {
      return unknown("'" + escape_for_display(name.substr(0, 200), true) + "'");
    }
    if (disk_.exists(paths_.model(name) + "/" + kManifestName)) return {};
    for (const Journal& journal : unfinished()) {
      if (journal.name != name) continue;
      return Unexpected(
          ErrorCode::kNoInput, "the model " + name + " is not complete: its split is not done",
          "wait for the split, or go on with 'airllm split " +
              escape_for_display(journal.source_label, true) + " --name " + name + "'");
    }
    return unknown(name);
  }

  Result<Manifest> load_manifest(const std::string& name) {
    const std::string folder = paths_.model(name);
    AIRLLM_TRY(Manifest manifest, with_remedy(read_manifest(disk_, folder), kRepairRemedy));
    if (manifest.name != name) {
      return Unexpected(ErrorCode::kData,
                        folder + "/" + kManifestName + ": it is the manifest of " +
                            escape_for_display(manifest.name, true),
                        kRepairRemedy);
    }
    return manifest;
  }

  Result<std::string> read_file(const std::string& name, const FileRecord& record) {
    const std::string path = paths_.model(name) + "/" + record.name;
    AIRLLM_TRY(const std::unique_ptr<DiskFile> file,
               with_remedy(disk_.open(path, OpenMode::kRead), kRepairRemedy));
    AIRLLM_TRY(std::string text, with_remedy(read_text(*file, kMaxFileBytes), kRepairRemedy));
    if (text.size() != record.bytes || xxh3(text) != record.hash) {
      return Unexpected(ErrorCode::kData,
                        path + ": damaged or changed: " + std::to_string(text.size()) +
                            " bytes with the hash " + hash_text(xxh3(text)) + " instead of " +
                            std::to_string(record.bytes) + " with " + hash_text(record.hash),
                        kRepairRemedy);
    }
    return text;
  }

  Status read_files(const Manifest& manifest, StoredModel& out) {
    bool has_config = false;
    for (const FileRecord& record : manifest.files) {
      if (record.name == "config.json") {
        AIRLLM_TRY(out.config_json, read_file(manifest.name, record));
        has_config = true;
      }
      for (const auto& [name, target] :
           {std::pair{"tokenizer.json", &out.tokenizer_json},
            std::pair{"tokenizer_config.json", &out.tokenizer_config_json},
            std::pair{"generation_config.json", &out.generation_config_json},
            std::pair{"chat_template.jinja", &out.chat_template_jinja}}) {
        if (record.name != name) continue;
        AIRLLM_TRY(*target, read_file(manifest.name, record));
      }
    }
    if (has_config) return {};
    return Unexpected(ErrorCode::kData,
                      paths_.model(manifest.name) + "/" + kManifestName + ": no config.json in it",
                      kRepairRemedy);
  }

  Result<std::vector<Shard>> open_shards(const Manifest& manifest,
                                         const model::Architecture& architecture) {
    const std::vector<model::StageSpec> stages = model::stages(architecture);
    const std::string folder = paths_.model(manifest.name);
    if (manifest.shards.size() != stages.size()) {
      return Unexpected(ErrorCode::kData,
                        folder + "/" + kManifestName + ": it has " +
                            std::to_string(manifest.shards.size()) + " shards, but the model has " +
                            std::to_string(stages.size()) + " stages",
                        kRepairRemedy);
    }
    std::vector<Shard> out;
    for (size_t i = 0; i < stages.size(); ++i) {
      const ShardRecord& record = manifest.shards[i];
      if (record.file != stages[i].shard_name + kShardSuffix) {
        return Unexpected(ErrorCode::kData,
                          folder + "/" + kManifestName + ": shard " + std::to_string(i) + " is " +
                              record.file + " instead of " + stages[i].shard_name + kShardSuffix,
                          kRepairRemedy);
      }
      const std::string path = folder + "/" + kShardsName + "/" + record.file;
      AIRLLM_TRY(Shard shard,
                 with_remedy(open_shard(disk_, path, stages[i], record), kRepairRemedy));
      out.push_back(std::move(shard));
    }
    return out;
  }

  Disk& disk_;
  const StorePaths paths_;
  std::unique_ptr<DiskLock> lock_;
  std::mutex mutex_;  // guards busy_
  std::set<std::string> busy_;
};

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::string& directory, Disk& disk) {
  auto store = std::make_unique<StoreImpl>(directory, disk);
  AIRLLM_TRY_VOID(store->open());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace airllm::store

#include "engine/store/store.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "base/json.h"
#include "base/users.h"
#include "base/utf8.h"
#include "engine/model/description.h"
#include "engine/store/journal.h"
#include "engine/store/manifest.h"
#include "engine/store/model_source.h"
#include "engine/store/names.h"
#include "engine/store/originals.h"
#include "engine/store/owner.h"
#include "engine/store/quota.h"
#include "engine/store/shelf.h"
#include "engine/store/split.h"
#include "engine/store/verify.h"

namespace airllm::store {
namespace {

using engine::FoundModel;
using engine::ModelRef;
using engine::Viewer;

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

ModelSummary summary_of(const Manifest& manifest) {
  ModelSummary out;
  out.bundled = manifest.bundled;
  out.bytes = manifest.bytes();
  out.bytes_elsewhere = manifest.bytes_elsewhere();
  out.in_place = manifest.in_place;
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

// What the weights are kept in, one entry for each number format.
Json formats_json(const std::vector<Shard>& shards) {
  struct Sums {
    uint64_t tensors = 0, parameters = 0, bytes = 0;
  };
  std::map<std::string, Sums> formats;
  for (const Shard& shard : shards) {
    for (const ShardTensor& tensor : shard.tensors) {
      Sums& sums = formats[kernels::number_format_name(tensor.format)];
      ++sums.tensors;
      sums.parameters += tensor.rows * tensor.shape.back();
      sums.bytes += tensor.bytes();
    }
  }
  Json out = Json::array();
  for (const auto& [name, sums] : formats) {
    out.push_back({{"name", name},
                   {"tensors", sums.tensors},
                   {"parameters", sums.parameters},
                   {"bytes", sums.bytes}});
  }
  return out;
}

uint64_t weight_bytes(const std::vector<Shard>& shards) {
  uint64_t sum = 0;
  for (const Shard& shard : shards) {
    for (const ShardTensor& tensor : shard.tensors) sum += tensor.bytes();
  }
  return sum;
}

class StoreImpl : public Store {
 public:
  StoreImpl(std::string directory, Disk& disk, std::optional<uint64_t> quota_bytes)
      : disk_(disk), root_(std::move(directory)), quota_bytes_(quota_bytes) {}

  // `on_step` may be empty.
  Status open(const std::function<void()>& on_step) {
    AIRLLM_TRY_VOID(
        with_remedy(disk_.make_directories(root_), "Choose another store with --store."));
    Result<std::unique_ptr<DiskLock>> lock = disk_.lock(root_ + "/lock");
    if (!lock) return lock_error(std::move(lock).error());
    lock_ = std::move(lock).value();
    AIRLLM_TRY_VOID(disk_.make_directories(shelf_of({}).models()));
    AIRLLM_TRY_VOID(disk_.make_directories(shelf_of({}).incoming()));
    for (const Holder holder : holders()) AIRLLM_TRY_VOID(shelf_of(holder).clean(on_step));
    return {};
  }

  void set_quota(std::optional<uint64_t> quota_bytes) override {
    const std::lock_guard guard(mutex_);
    quota_bytes_ = quota_bytes;
  }

  std::string place(const ModelRef& model) const override {
    return shelf_of(model.holder).model(model.name).substr(root_.size() + 1);
  }

  Result<FoundModel> find(const std::string& name, const Viewer& viewer, bool unfinished) override;
  Result<std::vector<ModelSummary>> list(const Viewer& viewer) override;

  using Store::open_model;
  using Store::verify;

  Result<StoredModel> open_model(const ModelRef& model, const OpenOptions& options) override {
    AIRLLM_TRY_VOID(check_exists(model));
    const ModelFolder folder = folder_of(model);
    AIRLLM_TRY(const Manifest manifest, folder.manifest(model.name));
    StoredModel out;
    AIRLLM_TRY(static_cast<ModelTexts&>(out), folder.texts(manifest));
    out.ref = model;
    out.place = place(model);
    AIRLLM_TRY(out.architecture, folder.architecture(out));
    AIRLLM_TRY(out.shards, folder.shards(manifest, out.architecture));
    if (manifest.in_place) {
      if (options.weights) AIRLLM_TRY_VOID(attach_originals(manifest, options, out));
      out.in_place = manifest;
    }
    return out;
  }

  bool is_in_place(const ModelRef& model) override {
    if (!shelf_of(model.holder).has(model.name)) return false;
    const Result<Manifest> manifest = folder_of(model).manifest(model.name);
    return manifest && manifest->in_place;
  }

  Status check_originals(const StoredModel& model) override {
    if (!model.in_place) return {};
    if (!model.files_were_passed) {
      AIRLLM_TRY_VOID(
          with_remedy(open_originals(disk_, *model.in_place), cannot_open_remedy(model.ref)));
      return {};
    }
    const OpenedFiles& files = model.shards.front().files;
    for (size_t i = 0; i < files.size(); ++i) {
      AIRLLM_TRY(const std::string identity, files[i]->identity());
      if (identity != model.in_place->sources[i + 1].identity) {
        return Unexpected(ErrorCode::kData, files[i]->path() + ": it was changed", kChangedRemedy);
      }
    }
    return {};
  }

  Result<Json> show(const ModelRef& model) override {
    AIRLLM_TRY_VOID(check_exists(model));
    const ModelFolder folder = folder_of(model);
    AIRLLM_TRY(const Manifest manifest, folder.manifest(model.name));
    AIRLLM_TRY(const ModelTexts texts, folder.texts(manifest));
    AIRLLM_TRY(const model::Architecture architecture, folder.architecture(texts));
    AIRLLM_TRY(const std::vector<Shard> shards, folder.shards(manifest, architecture));
    Json manifest_part = manifest_json(manifest);
    const std::string compression = compression_text(manifest.compression);
    return Json{{"name", model.name},
                {"complete", true},
                {"bundled", manifest.bundled},
                {"owner", user_name(owner_of(model))},
                {"shared", !model.holder},
                {"bytes", manifest.bytes()},
                {"elsewhere_bytes", manifest.bytes_elsewhere()},
                {"in_place", manifest.in_place ? Json(*manifest.in_place) : Json()},
                {"created", manifest.created},
                {"family", manifest.family},
                {"dtype", manifest.dtype},
                {"compression", compression.empty() ? Json() : Json(compression)},
                {"layers", manifest.layers},
                {"parameters", manifest.parameters},
                {"active_parameters",
                 model::count_parameters(architecture, model::stages(architecture)).active},
                {"kv_bytes_per_token", model::kv_bytes_per_token(architecture)},
                {"source", manifest.source_label},
                {"source_files", source_json(manifest.sources)},
                {"path", folder.path()},
                {"has_tokenizer", texts.tokenizer_json || texts.tokenizer_model || texts.tiktoken},
                {"architecture", model::describe(architecture)},
                {"formats", formats_json(shards)},
                {"shards", std::move(manifest_part["shards"])},
                {"files", std::move(manifest_part["files"])}};
  }

  Status remove(const ModelRef& model) override {
    AIRLLM_TRY_VOID(check_name(model.name));
    const Busy busy(*this, model);
    AIRLLM_TRY_VOID(busy.status());
    Shelf shelf = shelf_of(model.holder);
    const bool is_whole = shelf.has(model.name);
    const bool is_unfinished = shelf.has_unfinished(model.name);
    if (!is_whole && !is_unfinished) return unknown(model.name, {model.holder});
    if (is_whole) AIRLLM_TRY_VOID(shelf.discard(shelf.model(model.name)));
    if (is_unfinished) AIRLLM_TRY_VOID(shelf.discard(shelf.incoming(model.name)));
    return shelf.drop_empty_parents(model.name);
  }

  Status share(const ModelRef& model) override {
    if (!model.holder) return check_exists(model);
    const Busy busy_private(*this, model);
    AIRLLM_TRY_VOID(busy_private.status());
    AIRLLM_TRY_VOID(check_exists(model));
    const Busy busy_shared(*this, model.name);
    AIRLLM_TRY_VOID(busy_shared.status());
    AIRLLM_TRY_VOID(check_may_be_shared(model.name));
    Shelf own = shelf_of(model.holder);
    AIRLLM_TRY_VOID(shelf_of({}).take_in(own.model(model.name), model.name));
    return own.drop_empty_parents(model.name);
  }

  Result<Json> split(const engine::SplitRequest& request, const ProgressFn& progress,
                     std::stop_token stop) override {
    AIRLLM_TRY_VOID(check_name(request.name));
    const ModelRef model = target_of(request);
    const Busy busy(*this, model);
    AIRLLM_TRY_VOID(busy.status());
    Shelf shelf = shelf_of(model.holder);
    AIRLLM_TRY_VOID(shelf.check_nesting(request.name));
    if (model.holder && request.share) AIRLLM_TRY_VOID(check_may_be_shared(request.name));
    std::optional<Quota::Promise> promise;
    const auto promise_room = [&](uint64_t bytes) -> Status {
      if (!model.holder || !request.has_quota) return {};
      AIRLLM_TRY(const uint64_t limit, quota_bytes());
      return promise.emplace(quota_, *model.holder, request.name)
          .take(bytes, limit, [&](const std::set<std::string>& without) {
            return stored_bytes(*model.holder, without);
          });
    };
    const auto open_source = [&]() -> Result<Checkpoint> {
      if (!request.from) return open_checkpoint(disk_, *request.source, request.source_label);
      AIRLLM_TRY_VOID(check_exists(*request.from));
      return open_model_source(disk_, folder_of(*request.from), request.from->name);
    };
    AIRLLM_TRY(Json made,
               split_checkpoint(disk_, shelf, request, open_source, promise_room, progress, stop));
    if (request.only_plan) return made;
    made["shared"] = !model.holder;
    if (request.in_place) {
      AIRLLM_TRY(const Manifest manifest, folder_of(model).manifest(model.name));
      made["opens_originals"] = open_originals(disk_, manifest).has_value();
    }
    return made;
  }

  Result<Json> verify(const ModelRef& ref, const ProgressFn& progress, std::stop_token stop,
                      const OpenOptions& options) override {
    AIRLLM_TRY(const StoredModel model, open_model(ref, options));
    const ModelFolder folder = folder_of(ref);
    AIRLLM_TRY(const Manifest manifest, folder.manifest(ref.name));
    const uint64_t total = manifest.bytes() + (manifest.in_place ? weight_bytes(model.shards) : 0);
    uint64_t done = 0;
    const auto advance = [&](uint64_t bytes) -> Status {
      done += bytes;
      if (progress) progress(engine::Progress{"verify", done, total, "bytes"});
      if (stop.stop_requested()) {
        return Unexpected(ErrorCode::kCancelled, "verify of " + ref.name + ": cancelled");
      }
      return {};
    };
    for (const FileRecord& file : manifest.files) {
      AIRLLM_TRY_VOID(folder.file(file));
      AIRLLM_TRY_VOID(advance(file.bytes));
    }
    for (size_t i = 0; i < model.shards.size(); ++i) {
      if (manifest.in_place) {
        AIRLLM_TRY_VOID(advance(model.shards[i].file_bytes));
        AIRLLM_TRY_VOID(verify_in_place(model.shards[i], advance));
      } else {
        AIRLLM_TRY_VOID(verify_shard(model.shards[i], manifest.shards[i].hash, advance));
      }
    }
    return Json{
        {"name", ref.name}, {"shards", manifest.shards.size()}, {"bytes", total}, {"ok", true}};
  }

  Result<ReadSpeed> measure_read_speed(std::stop_token stop) override {
    AIRLLM_TRY(const std::vector<ModelSummary> models, list({}));
    std::string folder;
    uint64_t most = 0;
    for (const ModelSummary& model : models) {
      if (!model.complete || !model.problem.empty() || model.in_place) continue;
      if (model.bytes <= most) continue;
      most = model.bytes;
      folder = folder_of(model.model).path() + "/" + kShardsName;
    }
    return store::measure_read_speed(disk_, folder, root_, stop);
  }

 private:
  // Whose private models; nobody's are the shared ones.
  using Holder = std::optional<uid_t>;

  // Keeps others from working on the same model's folders.
  class Busy {
   public:
    Busy(StoreImpl& store, ModelRef model) : store_(store), model_(std::move(model)) {
      const std::lock_guard guard(store_.mutex_);
      taken_ = store_.busy_.insert(model_).second;
    }
    ~Busy() {
      if (!taken_) return;
      const std::lock_guard guard(store_.mutex_);
      store_.busy_.erase(model_);
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

    Status status() const {
      if (taken_) return {};
      return Unexpected(ErrorCode::kTemporary,
                        "the model " + model_.name + " is being made or removed by another job",
                        "wait for that job ('airllm ps' shows it), or cancel it");
    }

   private:
    StoreImpl& store_;
    const ModelRef model_;
    bool taken_ = false;
  };

  Status lock_error(Error error) const {
    if (error.code == ErrorCode::kTemporary) {
      error.message = "the store " + root_ + " is in use: " + error.message;
      error.remedy = "stop the other airllmd, or use another store with --store";
    }
    return Unexpected(std::move(error));
  }

  // ---- weights that are read in place ----

  std::string cannot_open_remedy(const ModelRef& model) {
    return "the service reads this model's weights where they lie, and may not open them: its "
           "owner, " +
           user_name(owner_of(model)) +
           ", has to ask first, once after each start of the service, and the owner's airllm "
           "passes them; or let the user " +
           user_name(::geteuid()) + " read the files";
  }

  // Gives the shards their files.
  Status attach_originals(const Manifest& manifest, const OpenOptions& options, StoredModel& out) {
    Result<OpenedFiles> files = open_originals(disk_, manifest);
    if (!files && may_be_passed(files.error()) && options.owner_files != nullptr) {
      files = adopt_originals(disk_, manifest, *options.owner_files);
      out.files_were_passed = true;
    }
    AIRLLM_TRY(const OpenedFiles opened,
               with_remedy(std::move(files), cannot_open_remedy(out.ref)));
    for (Shard& shard : out.shards) shard.files = opened;
    return {};
  }

  // ---- whose models ----

  std::string users_folder() const { return root_ + "/users"; }
  Shelf shelf_of(const Holder& holder) const {
    if (!holder) return {disk_, root_, false};
    return {disk_, users_folder() + "/" + std::to_string(*holder), true};
  }
  ModelFolder folder_of(const ModelRef& model) {
    return {disk_, shelf_of(model.holder).model(model.name)};
  }

  // All that may have models, the shared ones last.
  std::vector<Holder> holders() {
    std::vector<Holder> out;
    const auto entries =
        disk_.exists(users_folder()) ? disk_.list(users_folder()) : std::vector<DirEntry>();
    if (entries) {
      for (const DirEntry& entry : *entries) {
        const std::optional<uid_t> user = parse_user(entry.name);
        if (user && entry.is_directory) out.emplace_back(user);
      }
    }
    out.emplace_back();
    return out;
  }

  std::vector<Holder> holders_seen_by(const Viewer& viewer) {
    if (viewer.sees_all) return holders();
    std::vector<Holder> out;
    if (viewer.user) out.emplace_back(viewer.user);
    out.emplace_back();
    return out;
  }

  // In a user's own folder that is the user, whatever the record says.
  uid_t owner_of(const ModelRef& model) {
    if (model.holder) return *model.holder;
    return read_owner(disk_, folder_of(model).path()).value_or(::geteuid());
  }

  // Where a split goes: the owner's private model, unless the owner has shared this one already.
  ModelRef target_of(const engine::SplitRequest& request) {
    const ModelRef own(request.name, request.owner);
    if (!own.holder || shelf_of(own.holder).has(own.name)) return own;
    const ModelRef shared(request.name);
    const bool has_shared_it = shelf_of({}).has(shared.name) && owner_of(shared) == *own.holder;
    return has_shared_it ? shared : own;
  }

  Status check_may_be_shared(const std::string& name) {
    const Shelf shared = shelf_of({});
    if (shared.has(name)) {
      return Unexpected(ErrorCode::kCannotCreate,
                        "there is a shared model " + name + " already, owned by user " +
                            user_name(owner_of(name)),
                        "make yours again under another name with 'airllm split --name'");
    }
    return shared.check_nesting(name);
  }

  // ---- quota ----

  Result<uint64_t> quota_bytes() {
    {
      const std::lock_guard guard(mutex_);
      if (quota_bytes_) return *quota_bytes_;
    }
    AIRLLM_TRY(const uint64_t all, disk_.total_bytes(root_));
    return all / 2;
  }

  // Of the user's private and shared models and unfinished splits, less the private ones of
  // `without`.
  Result<uint64_t> stored_bytes(uid_t user, const std::set<std::string>& without) {
    uint64_t sum = 0;
    const auto add = [&](const std::string& folder) -> Status {
      AIRLLM_TRY(const uint64_t bytes, tree_bytes(disk_, folder));
      sum += bytes;
      return {};
    };
    const Shelf own = shelf_of(user);
    AIRLLM_TRY(const std::vector<std::string> own_names, own.names());
    for (const std::string& name : own_names) {
      if (!without.contains(name)) AIRLLM_TRY_VOID(add(own.model(name)));
    }
    for (const Journal& journal : own.unfinished()) {
      if (!without.contains(journal.name)) AIRLLM_TRY_VOID(add(own.incoming(journal.name)));
    }
    AIRLLM_TRY(const std::vector<std::string> shared_names, shelf_of({}).names());
    for (const std::string& name : shared_names) {
      if (owner_of(name) == user) AIRLLM_TRY_VOID(add(shelf_of({}).model(name)));
    }
    return sum;
  }

  // ---- names ----

  Unexpected unknown(const std::string& name, const Viewer& viewer) {
    std::vector<std::string> names;
    for (const Holder& holder : holders_seen_by(viewer)) {
      const Result<std::vector<std::string>> some = shelf_of(holder).names();
      if (!some) return Unexpected(some.error());
      names.insert(names.end(), some->begin(), some->end());
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    const std::vector<std::string> near = near_names(name, names);
    std::string remedy = "'airllm list' shows the models there are";
    if (names.empty()) remedy = "there is no model yet; 'airllm split DIR' makes one";
    if (!near.empty()) remedy = "did you mean " + join_quoted(near) + "?";
    const std::string shown = is_valid_model_name(name)
                                  ? name
                                  : "'" + escape_for_display(name.substr(0, 200), true) + "'";
    return Unexpected(ErrorCode::kNoInput, "there is no model " + shown, std::move(remedy));
  }

  // What there is of the name, whole or unfinished, or why not.
  Unexpected missing(const std::string& name, const Viewer& viewer) {
    for (const Holder& holder : holders_seen_by(viewer)) {
      for (const Journal& journal : shelf_of(holder).unfinished()) {
        if (journal.name == name) return unfinished_error(journal);
      }
    }
    return unknown(name, viewer);
  }

  static Unexpected unfinished_error(const Journal& journal) {
    return Unexpected(ErrorCode::kNoInput,
                      "the model " + journal.name + " is not complete: its split is not done",
                      "wait for the split, or go on with 'airllm split " +
                          escape_for_display(journal.source_label, true) + " --name " +
                          journal.name + "'");
  }

  Status check_exists(const ModelRef& model) {
    if (!is_valid_model_name(model.name)) return unknown(model.name, {model.holder});
    if (shelf_of(model.holder).has(model.name)) return {};
    return missing(model.name, {model.holder});
  }

  // ---- lists ----

  Status list_shelf(const Holder& holder, std::vector<ModelSummary>& out) {
    const Shelf shelf = shelf_of(holder);
    AIRLLM_TRY(const std::vector<std::string> names, shelf.names());
    const auto add = [&](const std::string& name, ModelSummary summary) {
      summary.model = {name, holder};
      summary.owner = owner_of(summary.model);
      out.push_back(std::move(summary));
    };
    for (const std::string& name : names) {
      const Result<Manifest> manifest = folder_of({name, holder}).manifest(name);
      ModelSummary broken;
      if (!manifest) broken.problem = manifest.error().message;
      add(name, manifest ? summary_of(*manifest) : broken);
    }
    for (const Journal& journal : shelf.unfinished()) {
      const bool is_whole = std::find(names.begin(), names.end(), journal.name) != names.end();
      if (!is_whole) add(journal.name, summary_of(journal));
    }
    return {};
  }

  Disk& disk_;
  const std::string root_;
  Quota quota_;
  std::unique_ptr<DiskLock> lock_;
  std::mutex mutex_;  // guards what follows
  std::set<ModelRef> busy_;
  std::optional<uint64_t> quota_bytes_;
};

Result<FoundModel> StoreImpl::find(const std::string& name, const Viewer& viewer, bool unfinished) {
  if (!is_valid_model_name(name)) return unknown(name, viewer);
  const auto is_there = [&](const Holder& holder) {
    const Shelf shelf = shelf_of(holder);
    return shelf.has(name) || (unfinished && shelf.has_unfinished(name));
  };
  const auto found = [&](const Holder& holder) {
    return FoundModel{{name, holder}, owner_of({name, holder})};
  };
  for (const Holder& holder : holders_seen_by({viewer.user})) {
    if (is_there(holder)) return found(holder);
  }
  if (!viewer.sees_all) return missing(name, viewer);
  std::vector<Holder> fitting;
  for (const Holder& holder : holders()) {
    if (is_there(holder)) fitting.push_back(holder);
  }
  if (fitting.empty()) return missing(name, viewer);
  if (fitting.size() == 1) return found(fitting.front());
  std::string owners;
  for (const Holder& holder : fitting) owners += (owners.empty() ? "" : ", ") + user_name(*holder);
  return Unexpected(ErrorCode::kUsage, "several users have a private model " + name + ": " + owners,
                    "give the command as its owner: sudo -u OWNER airllm ...");
}

Result<std::vector<ModelSummary>> StoreImpl::list(const Viewer& viewer) {
  std::vector<ModelSummary> out;
  for (const Holder& holder : holders_seen_by(viewer)) AIRLLM_TRY_VOID(list_shelf(holder, out));
  // A user's own come before the shared ones.
  std::stable_sort(out.begin(), out.end(), [](const ModelSummary& a, const ModelSummary& b) {
    return a.model.name < b.model.name;
  });
  return out;
}

}  // namespace

Result<Json> Store::verify(const ModelRef& model, const ProgressFn& progress,
                           std::stop_token stop) {
  return verify(model, progress, std::move(stop), {});
}

Result<std::unique_ptr<Store>> Store::open(const std::string& directory, Disk& disk,
                                           std::optional<uint64_t> quota_bytes,
                                           const std::function<void()>& on_step) {
  auto store = std::make_unique<StoreImpl>(directory, disk, quota_bytes);
  AIRLLM_TRY_VOID(store->open(on_step));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace airllm::store

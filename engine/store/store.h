// The store: models on disk, under one folder that one process owns.
//
//   STORE/models/NAME/manifest.json, config.json, tokenizer.json, …, shards/NNN-name.safetensors
//   STORE/incoming/NAME/…     a split under way, or interrupted; renamed into models/ when whole
//   STORE/users/UID/…         models/ and incoming/ of the models that this user alone sees
//   STORE/lock                held while a process uses the store
//   STORE/loading.json        which models were loading when a process died (load_marks.h)
//
// Where a model lies says who sees it; that its owner shares it is one rename.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/model/architecture.h"
#include "engine/store/disk.h"
#include "engine/store/manifest.h"
#include "engine/store/model_folder.h"
#include "engine/store/read_speed.h"
#include "engine/store/shard.h"

namespace airllm::store {

// A model of the store, opened: everything but the weights is in memory.
struct StoredModel : ModelTexts {
  engine::ModelRef ref;
  std::string place;  // as Store::place()
  model::Architecture architecture;
  std::optional<Manifest> in_place;  // of a model that is read in place
  bool files_were_passed = false;    // by its owner; else this process opened them
  std::vector<Shard> shards;         // one per stage, in the order of model::stages()
};

// A model's row in `airllm list`, from its manifest alone.
struct ModelSummary {
  engine::ModelRef model;
  uid_t owner = 0;
  bool bundled = false;                 // config.json has "airllm_bundled": true
  uint64_t bytes = 0;                   // of all its files in the store
  uint64_t bytes_elsewhere = 0;         // of the weights' files that are read in place
  std::optional<std::string> in_place;  // the folder that these lie in
  uint64_t parameters = 0;
  std::string family;
  std::string dtype;  // of most weights: "bf16"
  uint64_t layers = 0;
  std::string created;   // RFC 3339, UTC
  std::string source;    // as the user named it
  bool complete = true;  // false: in incoming/, can be resumed by the same split
  std::string problem;   // why the manifest cannot be read; empty when it can
};

// How a model is opened whose weights are read in place.
struct OpenOptions {
  bool weights = true;  // false: the shards' files are not opened, so that nothing can be read
  // What opens the files that this process may not; may be null. May wait.
  engine::OwnerFiles* owner_files = nullptr;
};

using ProgressFn = std::function<void(const engine::Progress&)>;

// Thread-safe: methods lock what they must. Names are checked by is_valid_model_name (names.h). Who
// may do what is the caller's to decide, but for what a name means to whom.
class Store {
 public:
  // Makes the folders (0700 where they are new), takes the lock. Another holder is a kTemporary
  // error that names its pid. Drops what in incoming/ cannot be resumed. `quota_bytes` as
  // EngineOptions::store_quota_bytes. `on_step` is called as it goes through the folders; may be
  // empty.
  static Result<std::unique_ptr<Store>> open(const std::string& directory, Disk& disk,
                                             std::optional<uint64_t> quota_bytes = std::nullopt,
                                             const std::function<void()>& on_step = {});
  virtual ~Store() = default;
  virtual void set_quota(std::optional<uint64_t> quota_bytes) = 0;

  // Engine::find().
  virtual Result<engine::FoundModel> find(const std::string& name, const engine::Viewer& viewer,
                                          bool unfinished) = 0;
  // By name, one's own and others' before shared ones.
  virtual Result<std::vector<ModelSummary>> list(const engine::Viewer& viewer) = 0;
  // The model's folder, below the store's: what tells it from all others.
  virtual std::string place(const engine::ModelRef& model) const = 0;
  // Unknown or unfinished: kNoInput, with near names in the remedy. Loads headers and checksum
  // tables, and checks them against the manifest.
  virtual Result<StoredModel> open_model(const engine::ModelRef& model,
                                         const OpenOptions& options) = 0;
  Result<StoredModel> open_model(const engine::ModelRef& model) { return open_model(model, {}); }
  // Whether the model's weights are read in place. False when that cannot be told.
  virtual bool is_in_place(const engine::ModelRef& model) = 0;
  // Of a model that is read in place: whether its files are still what they were. kData when not.
  virtual Status check_originals(const StoredModel& model) = 0;
  // Everything that `airllm show` prints: the manifest, the architecture, shards and their sizes.
  virtual Result<Json> show(const engine::ModelRef& model) = 0;
  // A whole model and an unfinished split of the name.
  virtual Status remove(const engine::ModelRef& model) = 0;
  // Engine::share(), but for the jobs that use it.
  virtual Status share(const engine::ModelRef& model) = 0;

  // Makes a model of a Hugging Face directory, or of a model. Returns {"name","bytes",
  // "elsewhere_bytes","shards","in_place":bool,"opens_originals":bool,"unchanged":bool,
  // "shared":bool}. A split that is to be shared is refused at once when that could not be; sharing
  // is left to the caller.
  virtual Result<Json> split(const engine::SplitRequest& request, const ProgressFn& progress,
                             std::stop_token stop) = 0;
  // Reads every byte. Returns {"name","shards","bytes","ok":true}; the first bad block is kData.
  virtual Result<Json> verify(const engine::ModelRef& model, const ProgressFn& progress,
                              std::stop_token stop, const OpenOptions& options) = 0;
  Result<Json> verify(const engine::ModelRef& model, const ProgressFn& progress,
                      std::stop_token stop);
  // Of the largest shared model's longest shard; of a file made for it in a store without one.
  virtual Result<ReadSpeed> measure_read_speed(std::stop_token stop) = 0;
};

}  // namespace airllm::store

// The store: models on disk, under one folder that one process owns.
//
//   STORE/models/NAME/manifest.json, config.json, tokenizer.json, …, shards/NNN-name.safetensors
//   STORE/incoming/NAME/…     a split under way, or interrupted; renamed into models/ when whole
//   STORE/lock                held while a process uses the store
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/model/architecture.h"
#include "engine/store/disk.h"
#include "engine/store/read_speed.h"
#include "engine/store/shard.h"

namespace airllm::store {

// A model of the store, opened: everything but the weights is in memory.
struct StoredModel {
  std::string name;
  model::Architecture architecture;
  std::string config_json;
  std::optional<std::string> tokenizer_json, tokenizer_config_json, generation_config_json;
  std::optional<std::string> chat_template_jinja;
  std::vector<Shard> shards;  // one per stage, in the order of model::stages()
};

// A model's row in `airllm list`, from its manifest alone.
struct ModelSummary {
  std::string name;
  bool bundled = false;  // config.json has "airllm_bundled": true
  uint64_t bytes = 0;    // of all its files
  uint64_t parameters = 0;
  std::string family;
  std::string dtype;  // of most weights: "bf16"
  uint64_t layers = 0;
  std::string created;   // RFC 3339, UTC
  std::string source;    // as the user named it
  bool complete = true;  // false: in incoming/, can be resumed by the same split
  std::string problem;   // why the manifest cannot be read; empty when it can
};

using ProgressFn = std::function<void(const engine::Progress&)>;

// Thread-safe: methods lock what they must. Names are checked by is_valid_model_name.
class Store {
 public:
  // Makes the folders (0700 where they are new), takes the lock. Another holder is a kTemporary
  // error that names its pid. Drops what in incoming/ cannot be resumed.
  static Result<std::unique_ptr<Store>> open(const std::string& directory, Disk& disk);
  virtual ~Store() = default;

  virtual Result<std::vector<ModelSummary>> list() = 0;
  // Unknown or unfinished: kNoInput, with near names in the remedy. Loads headers and checksum
  // tables, and checks them against the manifest.
  virtual Result<StoredModel> open_model(const std::string& name) = 0;
  // Everything that `airllm show` prints: the manifest, the architecture, shards and their sizes.
  virtual Result<Json> show(const std::string& name) = 0;
  virtual Status remove(const std::string& name) = 0;

  // Makes a model of a Hugging Face directory. Returns {"name","bytes","shards","unchanged":bool}.
  virtual Result<Json> split(const engine::SplitRequest& request, const ProgressFn& progress,
                             std::stop_token stop) = 0;
  // Reads every byte. Returns {"name","shards","bytes","ok":true}; the first bad block is kData.
  virtual Result<Json> verify(const std::string& name, const ProgressFn& progress,
                              std::stop_token stop) = 0;
  // Of the largest model's longest shard; of a file made for it in a store without models.
  virtual Result<ReadSpeed> measure_read_speed(std::stop_token stop) = 0;
};

// 1 to 128 of letters, digits, '.', '_', '-', and '/' between parts; no part begins with a dot.
// A hub id ("org/name") is a valid name.
bool is_valid_model_name(std::string_view name);

}  // namespace airllm::store

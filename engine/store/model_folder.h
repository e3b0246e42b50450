// Reads the folder of a whole model: its manifest, its small files, its shards' headers.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/store/disk.h"
#include "engine/store/manifest.h"
#include "engine/store/shard.h"

namespace airllm::store {

// What a model's small files say, as they came.
struct ModelTexts {
  std::string config_json;
  std::optional<std::string> tokenizer_json, tokenizer_config_json, generation_config_json;
  std::optional<std::string> tokenizer_model;  // where there is no tokenizer.json
  std::optional<std::string> special_tokens_map_json, added_tokens_json, chat_template_jinja;
  std::optional<std::string> tiktoken;  // of a *.tiktoken file
  std::vector<std::pair<std::string, std::string>> additional_chat_templates;  // name, source
};

// Borrows the disk. Whatever does not fit the manifest is a kData error that names the file.
class ModelFolder {
 public:
  ModelFolder(Disk& disk, std::string path) : disk_(disk), path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  // `name` is what the manifest must say.
  Result<Manifest> manifest(const std::string& name) const;
  Result<std::string> file(const FileRecord& record) const;
  Result<ModelTexts> texts(const Manifest& manifest) const;
  Result<model::Architecture> architecture(const ModelTexts& texts) const;
  // One per stage, with headers and checksum tables in memory. Those of a model that is read in
  // place have no files yet.
  Result<std::vector<Shard>> shards(const Manifest& manifest,
                                    const model::Architecture& architecture) const;

 private:
  Disk& disk_;
  std::string path_;
};

}  // namespace airllm::store

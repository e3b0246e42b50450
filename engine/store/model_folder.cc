#include "engine/store/model_folder.h"

#include <memory>
#include <utility>

#include "base/utf8.h"
#include "engine/model/stages.h"
#include "engine/store/hash.h"
#include "engine/store/shard_index.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{128} << 20;

}  // namespace

Result<Manifest> ModelFolder::manifest(const std::string& name) const {
  AIRLLM_TRY(Manifest manifest, with_remedy(read_manifest(disk_, path_), kRepairRemedy));
  if (manifest.name != name) {
    return Unexpected(ErrorCode::kData,
                      path_ + "/" + kManifestName + ": it is the manifest of " +
                          escape_for_display(manifest.name, true),
                      kRepairRemedy);
  }
  return manifest;
}

Result<std::string> ModelFolder::file(const FileRecord& record) const {
  const std::string path = path_ + "/" + record.name;
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

Result<ModelTexts> ModelFolder::texts(const Manifest& manifest) const {
  ModelTexts out;
  bool has_config = false;
  for (const FileRecord& record : manifest.files) {
    if (record.name == "config.json") {
      AIRLLM_TRY(out.config_json, file(record));
      has_config = true;
    }
    for (const auto& [name, target] :
         {std::pair{"tokenizer.json", &out.tokenizer_json},
          std::pair{"tokenizer_config.json", &out.tokenizer_config_json},
          std::pair{"generation_config.json", &out.generation_config_json},
          std::pair{"special_tokens_map.json", &out.special_tokens_map_json},
          std::pair{"added_tokens.json", &out.added_tokens_json},
          std::pair{"chat_template.jinja", &out.chat_template_jinja}}) {
      if (record.name != name) continue;
      AIRLLM_TRY(*target, file(record));
    }
    if (record.name.ends_with(".tiktoken")) {
      AIRLLM_TRY(out.tiktoken, file(record));
    }
    if (const auto name = chat_template_name(record.name)) {
      AIRLLM_TRY(std::string source, file(record));
      out.additional_chat_templates.emplace_back(*name, std::move(source));
    }
  }
  for (const FileRecord& record : manifest.files) {
    if (record.name != "tokenizer.model" || out.tokenizer_json) continue;
    AIRLLM_TRY(out.tokenizer_model, file(record));
  }
  if (has_config) return out;
  return Unexpected(ErrorCode::kData, path_ + "/" + kManifestName + ": no config.json in it",
                    kRepairRemedy);
}

Result<model::Architecture> ModelFolder::architecture(const ModelTexts& texts) const {
  return model::parse_config(texts.config_json, path_ + "/config.json");
}

Result<std::vector<Shard>> ModelFolder::shards(const Manifest& manifest,
                                               const model::Architecture& architecture) const {
  const std::vector<model::StageSpec> stages = model::stages(architecture);
  if (manifest.shards.size() != stages.size()) {
    return Unexpected(ErrorCode::kData,
                      path_ + "/" + kManifestName + ": it has " +
                          std::to_string(manifest.shards.size()) + " shards, but the model has " +
                          std::to_string(stages.size()) + " stages",
                      kRepairRemedy);
  }
  std::vector<Shard> out;
  for (size_t i = 0; i < stages.size(); ++i) {
    const ShardRecord& record = manifest.shards[i];
    const std::string wanted =
        stages[i].shard_name + (manifest.in_place ? kIndexSuffix : kShardSuffix);
    if (record.file != wanted) {
      return Unexpected(ErrorCode::kData,
                        path_ + "/" + kManifestName + ": shard " + std::to_string(i) + " is " +
                            record.file + " instead of " + wanted,
                        kRepairRemedy);
    }
    const std::string path = path_ + "/" + kShardsName + "/" + record.file;
    Result<Shard> shard = manifest.in_place
                              ? open_index(disk_, path, stages[i], record, manifest.sources)
                              : open_shard(disk_, path, stages[i], record);
    AIRLLM_TRY(Shard opened, with_remedy(std::move(shard), kRepairRemedy));
    out.push_back(std::move(opened));
  }
  return out;
}

}  // namespace airllm::store

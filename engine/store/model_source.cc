#include "engine/store/model_source.h"

#include <algorithm>

#include "engine/store/hash.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {
namespace {

constexpr const char* kConfigName = "config.json";

class Opener {
 public:
  Opener(Disk& disk, const ModelFolder& folder, const std::string& name)
      : disk_(disk), folder_(folder), name_(name) {}

  Result<Checkpoint> open() {
    AIRLLM_TRY(manifest_, folder_.manifest(name_));
    AIRLLM_TRY_VOID(check_exact());
    AIRLLM_TRY(const ModelTexts texts, folder_.texts(manifest_));
    AIRLLM_TRY(out_.architecture, folder_.architecture(texts));
    AIRLLM_TRY(shards_, folder_.shards(manifest_, out_.architecture));
    out_.label = name_;
    out_.config_json = texts.config_json;
    out_.stages = model::stages(out_.architecture);
    AIRLLM_TRY_VOID(open_small_files());
    AIRLLM_TRY_VOID(manifest_.in_place ? open_originals() : open_shards());
    find_tensors();
    return std::move(out_);
  }

 private:
  Status check_exact() const {
    if (manifest_.compression.is_none()) return {};
    return Unexpected(
        ErrorCode::kUsage,
        "the model " + name_ + " is compressed as " + compression_text(manifest_.compression) +
            ": its weights are not what they were",
        "split the folder that it was made of with that format: " + manifest_.source_label);
  }

  Status open_small_files() {
    for (const FileRecord& record : manifest_.files) {
      AIRLLM_TRY(auto file, disk_.open(folder_.path() + "/" + record.name, OpenMode::kRead));
      out_.small_files.push_back({record.name, std::move(file)});
    }
    // config.json, which is there, first.
    const auto config =
        std::find_if(out_.small_files.begin(), out_.small_files.end(),
                     [](const SmallFile& small) { return small.name == kConfigName; });
    if (config == out_.small_files.end()) {
      return Unexpected(ErrorCode::kData, folder_.path() + ": it has no " + kConfigName,
                        kRepairRemedy);
    }
    std::rotate(out_.small_files.begin(), config, config + 1);
    AIRLLM_TRY(std::string identity, out_.small_files.front().file->identity());
    out_.sources.push_back(
        {kConfigName, out_.config_json.size(), xxh3(out_.config_json), std::move(identity)});
    return {};
  }

  Status open_shards() {
    for (const ShardRecord& record : manifest_.shards) {
      const std::string path = folder_.path() + "/" + kShardsName + "/" + record.file;
      AIRLLM_TRY(auto file, disk_.open(path, OpenMode::kRead));
      AIRLLM_TRY(std::string identity, file->identity());
      out_.sources.push_back({record.file, record.bytes, record.hash, std::move(identity)});
      out_.weight_files.push_back(std::move(file));
    }
    return {};
  }

  // Whether they are what they were is seen before anything of them is used (check_unchanged()).
  Status open_originals() {
    for (size_t i = 1; i < manifest_.sources.size(); ++i) {
      const SourceRecord& source = manifest_.sources[i];
      AIRLLM_TRY(auto file, disk_.open(*manifest_.in_place + "/" + source.name, OpenMode::kRead));
      out_.sources.push_back(source);
      out_.weight_files.push_back(std::move(file));
    }
    return check_unchanged(out_);
  }

  void find_tensors() {
    for (size_t stage = 0; stage < out_.stages.size(); ++stage) {
      std::vector<SourceTensor>& tensors = out_.tensors.emplace_back();
      for (const model::TensorSpec& spec : out_.stages[stage].tensors) {
        // That it is there was checked when the shard was opened.
        const ShardTensor& tensor = *shards_[stage].find(spec.name);
        const size_t file = manifest_.in_place ? tensor.file : stage;
        tensors.push_back({.file = file,
                           .offset_bytes = tensor.offset_bytes,
                           .format = tensor.format,
                           .packed = nullptr});
      }
    }
  }

  Disk& disk_;
  const ModelFolder& folder_;
  const std::string& name_;
  Manifest manifest_;
  std::vector<Shard> shards_;
  Checkpoint out_;
};

}  // namespace

Result<Checkpoint> open_model_source(Disk& disk, const ModelFolder& folder,
                                     const std::string& name) {
  return Opener(disk, folder, name).open();
}

}  // namespace airllm::store

#include "engine/store/checkpoint.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/json.h"
#include "base/units.h"
#include "base/utf8.h"
#include "engine/store/hash.h"
#include "engine/store/pytorch.h"
#include "engine/store/safetensors.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {
namespace {

constexpr const char* kConfigName = "config.json";
// Of the weights, in the order in which transformers looks for them: a single file, or the index of
// several.
struct WeightNames {
  const char* single;
  const char* index;
};
constexpr WeightNames kWeightNames[] = {
    {"model.safetensors", "model.safetensors.index.json"},
    {"pytorch_model.bin", "pytorch_model.bin.index.json"},
};
constexpr std::string_view kPytorchSuffix = ".bin";
constexpr size_t kNamesPerCall = 64;     // what SourceDirectory takes at once
constexpr size_t kMaxWeightFiles = 900;  // all stay open; the usual limit of a process is 1024
constexpr uint64_t kMaxIndexBytes = 64 * kMiB;
constexpr uint64_t kMaxConfigBytes = kMiB;
constexpr uint64_t kMaxTemplateBytes = 4 * kMiB;

// What is copied into the model as it came, and how long each may be.
struct SmallFileKind {
  const char* name;
  uint64_t max_bytes;
};
constexpr SmallFileKind kSmallFiles[] = {
    {kConfigName, kMaxConfigBytes},
    {"generation_config.json", kMiB},
    {"tokenizer.json", 128 * kMiB},
    {"tokenizer_config.json", 16 * kMiB},
    {"special_tokens_map.json", 4 * kMiB},
    {"added_tokens.json", 4 * kMiB},
    {"chat_template.jinja", kMaxTemplateBytes},
    {"tokenizer.model", 64 * kMiB},
    {"qwen.tiktoken", 64 * kMiB},
    {"vocab.json", 64 * kMiB},
    {"merges.txt", 64 * kMiB},
};

std::string quote(std::string_view text) {
  return "'" + escape_for_display(text.substr(0, 120), true) + "'";
}

class Opener {
 public:
  Opener(Disk& disk, engine::SourceDirectory& directory, const std::string& label)
      : disk_(disk), directory_(directory), label_(label) {
    out_.label = index_.label = label;
  }

  Result<Checkpoint> open() {
    AIRLLM_TRY_VOID(open_small_files());
    AIRLLM_TRY_VOID(read_config());
    AIRLLM_TRY_VOID(open_weight_files());
    AIRLLM_TRY_VOID(read_headers());
    AIRLLM_TRY_VOID(check_index());
    AIRLLM_TRY_VOID(match_tensors());
    AIRLLM_TRY_VOID(check_leftover());
    out_.weight_files = std::move(index_.files);
    return std::move(out_);
  }

 private:
  std::string where(const std::string& name) const { return label_ + "/" + name; }
  Unexpected bad(const std::string& why, std::string remedy = {}) const {
    return index_.bad(why, std::move(remedy));
  }

  // One file per name, in order; null for what does not exist.
  Result<WeightFiles> open_names(const std::vector<std::string>& names) {
    WeightFiles out;
    for (size_t begin = 0; begin < names.size(); begin += kNamesPerCall) {
      const std::span<const std::string> group =
          std::span(names).subspan(begin, std::min(kNamesPerCall, names.size() - begin));
      AIRLLM_TRY(std::vector<UniqueFd> fds, directory_.open(group));
      if (fds.size() != group.size()) {
        return Unexpected(ErrorCode::kProtocol, label_ + ": " + std::to_string(fds.size()) +
                                                    " files came for " +
                                                    std::to_string(group.size()) + " names");
      }
      for (size_t i = 0; i < fds.size(); ++i) {
        out.push_back(nullptr);
        if (!fds[i].valid()) continue;
        AIRLLM_TRY(out.back(), disk_.adopt(std::move(fds[i]), where(group[i]), OpenMode::kRead));
      }
    }
    return out;
  }

  Status open_small_files() {
    std::vector<std::string> names;
    for (const SmallFileKind& kind : kSmallFiles) names.emplace_back(kind.name);
    for (const WeightNames& weights : kWeightNames) {
      names.emplace_back(weights.single);
      names.emplace_back(weights.index);
    }
    AIRLLM_TRY(auto files, open_names(names));
    for (size_t i = 0; i < std::size(kSmallFiles); ++i) {
      if (!files[i]) continue;
      AIRLLM_TRY_VOID(check_size(names[i], *files[i], kSmallFiles[i].max_bytes));
      out_.small_files.push_back({names[i], std::move(files[i])});
    }
    for (size_t i = std::size(kSmallFiles); i < files.size() && !weights_; ++i) {
      weights_ = std::move(files[i]);
      weights_name_ = names[i];
    }
    return open_chat_templates();
  }

  // The further templates, which transformers reads from a folder of their own.
  Status open_chat_templates() {
    const std::vector<std::string> found = directory_.chat_templates();
    if (found.size() > engine::kMaxChatTemplates) {
      return bad("it has " + std::to_string(found.size()) + " additional chat templates; at most " +
                 std::to_string(engine::kMaxChatTemplates) + " can be used");
    }
    std::vector<std::string> names;
    std::set<std::string> kept;
    for (const std::string& name : found) {
      const std::string stored = chat_template_file(name);
      if (!name.ends_with(kTemplateSuffix) || name == kTemplateSuffix ||
          !is_plain_file_name(name) || !is_plain_file_name(stored)) {
        return bad(quote(name) + " cannot be the name of a chat template's file");
      }
      if (!kept.insert(stored).second)
        return bad("it has the chat template " + quote(name) + " twice");
      names.push_back(std::string(engine::kChatTemplatesFolder) + "/" + name);
    }
    AIRLLM_TRY(auto files, open_names(names));
    for (size_t i = 0; i < names.size(); ++i) {
      if (!files[i]) return bad(names[i] + " is gone", "give the command again");
      AIRLLM_TRY_VOID(check_size(names[i], *files[i], kMaxTemplateBytes));
      out_.small_files.push_back({chat_template_file(found[i]), std::move(files[i])});
    }
    return {};
  }

  Status check_size(const std::string& name, const DiskFile& file, uint64_t max_bytes) const {
    AIRLLM_TRY(const uint64_t size, file.size_bytes());
    if (size <= max_bytes) return {};
    return bad(name + " is " + format_size(size) + " long, but at most " + format_size(max_bytes) +
               " is allowed");
  }

  Status read_config() {
    if (out_.small_files.empty() || out_.small_files.front().name != kConfigName) {
      return Unexpected(ErrorCode::kNoInput, where(kConfigName) + ": no such file",
                        "give the folder of a Hugging Face model");
    }
    const DiskFile& file = *out_.small_files.front().file;
    AIRLLM_TRY(out_.config_json, read_text(file, kMaxConfigBytes));
    AIRLLM_TRY(out_.architecture, model::parse_config(out_.config_json, where(kConfigName)));
    AIRLLM_TRY(const Json root, parse_json_object(out_.config_json, where(kConfigName)));
    AIRLLM_TRY(quantization_, read_quantization({root, where(kConfigName)}));
    out_.stages = model::stages(out_.architecture);
    AIRLLM_TRY(std::string identity, file.identity());
    out_.sources.push_back(
        {kConfigName, out_.config_json.size(), xxh3(out_.config_json), std::move(identity)});
    return {};
  }

  Status open_weight_files() {
    if (!weights_) {
      return Unexpected(ErrorCode::kNoInput,
                        label_ + ": neither " + kWeightNames[0].single + " nor " +
                            kWeightNames[0].index + " is there, and no " + kWeightNames[1].single,
                        "only checkpoints in these formats can be used");
    }
    if (!weights_name_.ends_with(".json")) {
      index_.files.push_back(std::move(weights_));
      file_names_.push_back(weights_name_);
      return {};
    }
    AIRLLM_TRY_VOID(read_index());
    AIRLLM_TRY(index_.files, open_names(file_names_));
    for (size_t i = 0; i < file_names_.size(); ++i) {
      if (index_.files[i]) continue;
      return Unexpected(
          ErrorCode::kNoInput,
          where(file_names_[i]) + ": no such file, but " + weights_name_ + " names it",
          "download the checkpoint again; it is incomplete");
    }
    return {};
  }

  Status read_index() {
    AIRLLM_TRY(const std::string text, read_text(*weights_, kMaxIndexBytes));
    AIRLLM_TRY(const Json root, parse_json(text, where(weights_name_)));
    const auto map = root.is_object() ? root.find("weight_map") : root.end();
    if (!root.is_object() || map == root.end() || !map->is_object() || map->empty()) {
      return Unexpected(ErrorCode::kData, where(weights_name_) + ": it has no weight_map");
    }
    std::map<std::string, size_t> numbers;
    for (const auto& [tensor, value] : map->items()) {
      const std::string name = value.is_string() ? value.get<std::string>() : "";
      if (!is_plain_file_name(name)) {
        return Unexpected(ErrorCode::kData,
                          where(weights_name_) + ": tensor " + quote(tensor) + " lies in " +
                              quote(value.is_string() ? name : dump_json(value)) +
                              ", which is not the plain name of a file",
                          "do not use this checkpoint unless you know where it comes from");
      }
      numbers.emplace(name, 0);
      index_map_.emplace(tensor, name);
    }
    if (numbers.size() > kMaxWeightFiles) {
      return bad(weights_name_ + " names " + std::to_string(numbers.size()) + " files; at most " +
                 std::to_string(kMaxWeightFiles) + " can be used");
    }
    for (const auto& [name, number] : numbers) file_names_.push_back(name);
    return {};
  }

  Status read_headers() {
    for (size_t i = 0; i < index_.files.size(); ++i) {
      const DiskFile& file = *index_.files[i];
      AIRLLM_TRY(const uint64_t size, file.size_bytes());
      AIRLLM_TRY(std::string identity, file.identity());
      AIRLLM_TRY(SafetensorsHeader header, file_names_[i].ends_with(kPytorchSuffix)
                                               ? read_pytorch_header(file)
                                               : read_safetensors_header(file));
      out_.sources.push_back({file_names_[i], size, header.hash, std::move(identity)});
      for (TensorRecord& record : header.tensors) {
        const auto [at, fresh] = index_.tensors.try_emplace(
            record.name,
            FoundTensor{i, header.data_offset + record.begin, record.dtype, record.shape});
        if (!fresh) {
          return bad("tensor " + quote(record.name) + " is in " + file_names_[at->second.file] +
                     " and in " + file_names_[i]);
        }
      }
    }
    return {};
  }

  // Every tensor lies where the index says, and the index misses none.
  Status check_index() {
    if (index_map_.empty()) return {};
    for (const auto& [tensor, file] : index_map_) {
      const auto at = index_.tensors.find(tensor);
      if (at == index_.tensors.end() || file_names_[at->second.file] != file) {
        return bad("tensor " + quote(tensor) + " is not in " + quote(file) + ", where " +
                   weights_name_ + " puts it");
      }
    }
    for (const auto& [tensor, found] : index_.tensors) {
      if (!index_map_.contains(tensor)) {
        return bad("tensor " + quote(tensor) + " of " + file_names_[found.file] + " is not in " +
                   weights_name_);
      }
    }
    return {};
  }

  Status match_tensors() {
    for (const model::StageSpec& stage : out_.stages) {
      auto& matched = out_.tensors.emplace_back();
      for (const model::TensorSpec& spec : stage.tensors) {
        AIRLLM_TRY(const SourceTensor tensor, match(spec));
        matched.push_back(tensor);
      }
    }
    return {};
  }

  // The name that the tensor has here, of its spellings; the first is the one that messages give.
  std::string spelled(const std::string& name) const {
    for (std::string& spelling : model::spellings(out_.architecture, name)) {
      if (index_.tensors.contains(spelling)) return std::move(spelling);
    }
    return name;
  }

  Result<SourceTensor> match(const model::TensorSpec& spec) {
    const bool is_part = !spec.part.name.empty();
    std::vector<uint64_t> shape = is_part ? spec.part.shape : spec.shape;
    if (spec.is_transposed && !is_part) std::reverse(shape.begin(), shape.end());
    const std::string name = spelled(is_part ? spec.part.name : spec.name);
    const FoundTensor* found = index_.use(name);
    if (found == nullptr) {
      return bad("tensor " + name + " " + describe_shape(shape) + " is missing from its weights");
    }
    AIRLLM_TRY(auto packed, find_packed(quantization_, index_, name, spec));
    if (packed) {
      const kernels::NumberFormat format = packed->format();
      return SourceTensor{.file = found->file,
                          .offset_bytes = found->offset_bytes,
                          .format = format,
                          .packed = std::move(packed)};
    }
    if (found->shape != shape) {
      return bad("tensor " + name + " has the shape " + describe_shape(found->shape) +
                 ", but config.json makes it " + describe_shape(shape));
    }
    const auto format = weight_format(found->dtype);
    if (!format) {
      return bad("tensor " + name + " has the dtype " + dtype_name(found->dtype) +
                 ", and config.json does not say how it is packed; F32, F16 and BF16 can be used");
    }
    const uint64_t part_bytes = kernels::bytes_per_element(*format) * spec.elements();
    return SourceTensor{.file = found->file,
                        .offset_bytes = found->offset_bytes + spec.part.index * part_bytes,
                        .format = *format,
                        .is_transposed = spec.is_transposed};
  }

  Status check_leftover() const {
    const std::string* first = nullptr;
    for (const auto& [name, found] : index_.tensors) {
      if (index_.used.contains(name) || model::is_ignorable_tensor(out_.architecture, name)) {
        continue;
      }
      if (first == nullptr || name < *first) first = &name;
    }
    if (first == nullptr) return {};
    const FoundTensor& found = index_.tensors.at(*first);
    return bad("tensor " + quote(*first) + " " + describe_shape(found.shape) +
               " has no place in a model of the family " + out_.architecture.family +
               " as config.json describes it");
  }

  Disk& disk_;
  engine::SourceDirectory& directory_;
  const std::string& label_;
  Checkpoint out_;
  std::unique_ptr<DiskFile> weights_;  // all of them, or the index of their files
  std::string weights_name_;
  std::vector<std::string> file_names_;           // parallel to out_.weight_files
  std::map<std::string, std::string> index_map_;  // tensor to file; empty without an index
  Quantization quantization_;
  TensorIndex index_;
};

}  // namespace

std::string Checkpoint::dtype() const {
  std::array<uint64_t, kernels::kAllFormats.size()> elements{};
  for (size_t i = 0; i < stages.size(); ++i) {
    for (size_t j = 0; j < tensors[i].size(); ++j) {
      elements[static_cast<size_t>(tensors[i][j].stored_as)] += stages[i].tensors[j].elements();
    }
  }
  const auto most = std::max_element(elements.begin(), elements.end()) - elements.begin();
  return kernels::number_format_name(static_cast<kernels::NumberFormat>(most));
}

void compress(Checkpoint& checkpoint, Compression& compression) {
  bool is_packed = false;
  for (size_t i = 0; i < checkpoint.stages.size(); ++i) {
    std::vector<SourceTensor>& sources = checkpoint.tensors[i];
    const bool is_layer = checkpoint.stages[i].kind == model::StageSpec::Kind::kLayer;
    std::vector<kernels::NumberFormat> formats;
    for (const SourceTensor& source : sources) formats.push_back(source.format);
    formats = stored_formats(compression, checkpoint.stages[i], formats);
    const std::vector<bool> may_be = compressible(checkpoint.stages[i]);
    for (size_t j = 0; j < sources.size(); ++j) {
      SourceTensor& source = sources[j];
      source.stored_as = formats[j];
      const bool is_kept = source.stored_as == source.format;
      if (source.packed && is_kept && may_be[j]) {
        source.stored_as = source.packed->exact_format().value_or(source.format);
      }
      is_packed = is_packed || kernels::is_compressed(source.stored_as);
      if (is_layer && may_be[j] && !source.is_exact()) {
        source.outliers = outlier_count(compression, checkpoint.stages[i].tensors[j].shape.back());
      }
    }
  }
  compression.keeps_packed = compression.is_none() && is_packed;
}

bool Checkpoint::bundled() const {
  const Result<Json> root = parse_json(config_json, label);
  if (!root || !root->is_object()) return false;
  const auto at = root->find("airllm_bundled");
  return at != root->end() && at->is_boolean() && at->get<bool>();
}

Result<Checkpoint> open_checkpoint(Disk& disk, engine::SourceDirectory& directory,
                                   const std::string& label) {
  return Opener(disk, directory, label).open();
}

Status check_usable_in_place(const Checkpoint& checkpoint) {
  for (size_t i = 0; i < checkpoint.stages.size(); ++i) {
    for (size_t j = 0; j < checkpoint.tensors[i].size(); ++j) {
      const SourceTensor& tensor = checkpoint.tensors[i][j];
      if (!tensor.packed && !tensor.is_transposed) continue;
      return Unexpected(ErrorCode::kData,
                        checkpoint.label + " cannot be read in place: the tensor " +
                            checkpoint.stages[i].tensors[j].name +
                            (tensor.packed ? " is packed there and has to be expanded"
                                           : " lies there as [in, out] and has to be transposed"),
                        "split it without --in-place");
    }
  }
  return {};
}

Status check_unchanged(const Checkpoint& checkpoint) {
  for (size_t i = 0; i < checkpoint.sources.size(); ++i) {
    const DiskFile& file =
        i == 0 ? *checkpoint.small_files.front().file : *checkpoint.weight_files[i - 1];
    AIRLLM_TRY(const std::string identity, file.identity());
    if (identity != checkpoint.sources[i].identity) {
      return Unexpected(ErrorCode::kData, file.path() + ": it changed while it was being read",
                        "give the command again when nothing writes to it any more");
    }
  }
  return {};
}

}  // namespace airllm::store

#include "engine/store/manifest.h"

#include <algorithm>
#include <initializer_list>

#include "base/checked.h"
#include "base/json.h"
#include "base/utf8.h"
#include "engine/engine.h"
#include "engine/store/hash.h"
#include "engine/store/shard_layout.h"

namespace airllm::store {
namespace {

// An object with exactly the named keys.
class Strict {
 public:
  Strict(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  Status has_exactly(std::initializer_list<const char*> keys) const {
    if (!object_.is_object()) return bad("not an object");
    for (const char* key : keys) {
      if (!object_.contains(key)) return bad(std::string(key) + " is missing");
    }
    for (const auto& item : object_.items()) {
      const std::string& key = item.key();
      const bool known =
          std::any_of(keys.begin(), keys.end(), [&](const char* name) { return key == name; });
      if (!known) return bad("unknown key '" + escape_for_display(key.substr(0, 80), true) + "'");
    }
    return {};
  }

  Result<std::string> text(const char* key) const {
    const Json& value = object_.at(key);
    if (!value.is_string()) return bad(std::string(key) + " is not a string");
    return value.get<std::string>();
  }
  Result<uint64_t> number(const char* key) const {
    const Json& value = object_.at(key);
    if (!value.is_number_unsigned()) return bad(std::string(key) + " is not a whole number");
    return value.get<uint64_t>();
  }
  Result<bool> flag(const char* key) const {
    const Json& value = object_.at(key);
    if (!value.is_boolean()) return bad(std::string(key) + " is not true or false");
    return value.get<bool>();
  }
  Result<uint64_t> hash(const char* key) const {
    AIRLLM_TRY(const std::string digits, text(key));
    const auto value = parse_hash(digits);
    if (!value) return bad(std::string(key) + " is not 16 hexadecimal digits");
    return *value;
  }
  Result<std::string> file_name(const char* key) const {
    AIRLLM_TRY(std::string name, text(key));
    if (!is_plain_file_name(name)) return bad(std::string(key) + " is not a plain file name");
    return name;
  }
  const Json& at(const char* key) const { return object_.at(key); }
  Unexpected bad(const std::string& why) const {
    return Unexpected(ErrorCode::kData, what_ + ": " + why, kRepairRemedy);
  }

 private:
  const Json& object_;
  std::string what_;
};

template <typename T, typename ParseOne>
Result<std::vector<T>> parse_list(const Json& list, const std::string& what, ParseOne parse_one) {
  if (!list.is_array()) return Unexpected(ErrorCode::kData, what + " is not a list");
  std::vector<T> out;
  for (const Json& item : list) {
    AIRLLM_TRY(T one, parse_one(Strict(item, what + "[" + std::to_string(out.size()) + "]")));
    out.push_back(std::move(one));
  }
  return out;
}

Result<FileRecord> parse_file(const Strict& item) {
  AIRLLM_TRY_VOID(item.has_exactly({"name", "bytes", "xxh3"}));
  FileRecord out;
  AIRLLM_TRY(out.name, item.file_name("name"));
  AIRLLM_TRY(out.bytes, item.number("bytes"));
  AIRLLM_TRY(out.hash, item.hash("xxh3"));
  return out;
}

Result<ShardRecord> parse_shard(const Strict& item) {
  AIRLLM_TRY_VOID(item.has_exactly({"file", "bytes", "xxh3"}));
  ShardRecord out;
  AIRLLM_TRY(out.file, item.file_name("file"));
  AIRLLM_TRY(out.bytes, item.number("bytes"));
  AIRLLM_TRY(out.hash, item.hash("xxh3"));
  return out;
}

Result<SourceRecord> parse_source(const Strict& item) {
  AIRLLM_TRY_VOID(item.has_exactly({"name", "bytes", "xxh3", "identity"}));
  SourceRecord out;
  AIRLLM_TRY(out.name, item.file_name("name"));
  AIRLLM_TRY(out.bytes, item.number("bytes"));
  AIRLLM_TRY(out.hash, item.hash("xxh3"));
  AIRLLM_TRY(out.identity, item.text("identity"));
  return out;
}

// Another version is refused by name before anything else is looked at.
Status check_version(const Json& root, const std::string& what) {
  const auto text = [&](const char* key) {
    const auto at = root.is_object() ? root.find(key) : root.end();
    if (!root.is_object() || at == root.end()) return std::string("missing");
    return at->is_string() ? at->get<std::string>() : dump_json(*at);
  };
  if (text("format") != kManifestFormat) {
    return Unexpected(ErrorCode::kData, what + ": not the manifest of a model");
  }
  const std::string ours = std::to_string(kManifestVersion);
  if (text("version") != ours || text("layout") != kRowMajorLayout) {
    const std::string name = escape_for_display(text("name"), true);
    return Unexpected(ErrorCode::kData,
                      what + ": format version " + escape_for_display(text("version"), true) +
                          " with layout " + escape_for_display(text("layout"), true) +
                          ", but this program reads version " + ours + " with layout " +
                          kRowMajorLayout,
                      "make it again: airllm rm " + name + " && airllm split DIR --name " + name +
                          "; or use the airllm that made it");
  }
  return {};
}

}  // namespace

uint64_t Manifest::bytes() const {
  uint64_t sum = 0;
  for (const ShardRecord& shard : shards) sum += shard.bytes;
  for (const FileRecord& file : files) sum += file.bytes;
  return sum;
}

Json shard_json(const ShardRecord& shard) {
  return Json{{"file", shard.file}, {"bytes", shard.bytes}, {"xxh3", hash_text(shard.hash)}};
}

Json source_json(const std::vector<SourceRecord>& sources) {
  Json list = Json::array();
  for (const SourceRecord& source : sources) {
    list.push_back(Json{{"name", source.name},
                        {"bytes", source.bytes},
                        {"xxh3", hash_text(source.hash)},
                        {"identity", source.identity}});
  }
  return list;
}

Json manifest_json(const Manifest& manifest) {
  Json shards = Json::array();
  for (const ShardRecord& shard : manifest.shards) shards.push_back(shard_json(shard));
  Json files = Json::array();
  for (const FileRecord& file : manifest.files) {
    files.push_back(
        Json{{"name", file.name}, {"bytes", file.bytes}, {"xxh3", hash_text(file.hash)}});
  }
  return Json{
      {"format", kManifestFormat},
      {"version", kManifestVersion},
      {"layout", kRowMajorLayout},
      {"name", manifest.name},
      {"created", manifest.created},
      {"bundled", manifest.bundled},
      {"family", manifest.family},
      {"dtype", manifest.dtype},
      {"layers", manifest.layers},
      {"parameters", manifest.parameters},
      {"source", Json{{"label", manifest.source_label}, {"files", source_json(manifest.sources)}}},
      {"shards", std::move(shards)},
      {"files", std::move(files)}};
}

Result<std::vector<SourceRecord>> parse_sources(const Json& list, const std::string& what) {
  return parse_list<SourceRecord>(list, what, parse_source);
}

Result<std::vector<ShardRecord>> parse_shards(const Json& list, const std::string& what) {
  return parse_list<ShardRecord>(list, what, parse_shard);
}

Result<Manifest> parse_manifest(std::string_view text, const std::string& what) {
  AIRLLM_TRY(const Json root, parse_json(text, what));
  AIRLLM_TRY_VOID(check_version(root, what));
  const Strict top(root, what);
  AIRLLM_TRY_VOID(
      top.has_exactly({"format", "version", "layout", "name", "created", "bundled", "family",
                       "dtype", "layers", "parameters", "source", "shards", "files"}));
  Manifest out;
  AIRLLM_TRY(out.name, top.text("name"));
  AIRLLM_TRY(out.created, top.text("created"));
  AIRLLM_TRY(out.bundled, top.flag("bundled"));
  AIRLLM_TRY(out.family, top.text("family"));
  AIRLLM_TRY(out.dtype, top.text("dtype"));
  AIRLLM_TRY(out.layers, top.number("layers"));
  AIRLLM_TRY(out.parameters, top.number("parameters"));
  const Strict source(top.at("source"), what + ": source");
  AIRLLM_TRY_VOID(source.has_exactly({"label", "files"}));
  AIRLLM_TRY(out.source_label, source.text("label"));
  AIRLLM_TRY(out.sources, parse_sources(source.at("files"), what + ": source files"));
  AIRLLM_TRY(out.shards, parse_shards(top.at("shards"), what + ": shards"));
  AIRLLM_TRY(out.files, parse_list<FileRecord>(top.at("files"), what + ": files", parse_file));
  return out;
}

Result<Manifest> read_manifest(Disk& disk, const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kRead));
  AIRLLM_TRY(const std::string text, read_text(*file, kMaxManifestBytes));
  return parse_manifest(text, path);
}

std::string chat_template_file(std::string_view name) {
  return std::string(engine::kChatTemplatesFolder) + "." + std::string(name);
}

std::optional<std::string> chat_template_name(std::string_view file) {
  const std::string prefix = chat_template_file("");
  if (!file.starts_with(prefix) || !file.ends_with(kTemplateSuffix)) return std::nullopt;
  file.remove_prefix(prefix.size());
  if (file.size() <= kTemplateSuffix.size()) return std::nullopt;
  file.remove_suffix(kTemplateSuffix.size());
  return std::string(file);
}

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.') return false;
  if (find_invalid_utf8(name) != kValidUtf8) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

}  // namespace airllm::store

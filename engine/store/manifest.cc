#include "engine/store/manifest.h"

#include <algorithm>

#include "base/checked.h"
#include "base/json.h"
#include "base/utf8.h"
#include "engine/engine.h"
#include "engine/store/hash.h"
#include "engine/store/shard_layout.h"
#include "engine/store/strict_json.h"

namespace airllm::store {
namespace {

Result<FileRecord> parse_file(const StrictObject& item) {
  AIRLLM_TRY_VOID(item.has_exactly({"name", "bytes", "xxh3"}));
  FileRecord out;
  AIRLLM_TRY(out.name, item.file_name("name"));
  AIRLLM_TRY(out.bytes, item.number("bytes"));
  AIRLLM_TRY(out.hash, item.hash("xxh3"));
  return out;
}

Result<ShardRecord> parse_shard(const StrictObject& item) {
  AIRLLM_TRY_VOID(item.has_exactly({"file", "bytes", "xxh3"}));
  ShardRecord out;
  AIRLLM_TRY(out.file, item.file_name("file"));
  AIRLLM_TRY(out.bytes, item.number("bytes"));
  AIRLLM_TRY(out.hash, item.hash("xxh3"));
  return out;
}

Result<SourceRecord> parse_source(const StrictObject& item) {
  AIRLLM_TRY_VOID(item.has_exactly({"name", "bytes", "xxh3", "identity"}));
  SourceRecord out;
  AIRLLM_TRY(out.name, item.file_name("name"));
  AIRLLM_TRY(out.bytes, item.number("bytes"));
  AIRLLM_TRY(out.hash, item.hash("xxh3"));
  AIRLLM_TRY(out.identity, item.text("identity"));
  return out;
}

// Another version is refused by name before anything else is looked at.
const char* layout_of(const Manifest& manifest) {
  if (manifest.in_place) return kInPlaceLayout;
  if (manifest.compression.outliers > 0) return kOutliersLayout;
  return compression_text(manifest.compression).empty() ? kRowMajorLayout : kCompressedLayout;
}

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
  const bool is_layout = text("layout") == kRowMajorLayout || text("layout") == kInPlaceLayout ||
                         text("layout") == kCompressedLayout || text("layout") == kOutliersLayout;
  if (text("version") != ours || !is_layout) {
    const std::string name = escape_for_display(text("name"), true);
    return Unexpected(ErrorCode::kData,
                      what + ": format version " + escape_for_display(text("version"), true) +
                          " with layout " + escape_for_display(text("layout"), true) +
                          ", but this program reads version " + ours + " with layout " +
                          kRowMajorLayout + ", " + kCompressedLayout + ", " + kOutliersLayout +
                          " or " + kInPlaceLayout,
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

uint64_t Manifest::bytes_elsewhere() const {
  uint64_t sum = 0;
  for (size_t i = 1; in_place && i < sources.size(); ++i) sum += sources[i].bytes;
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
  Json out{
      {"format", kManifestFormat},
      {"version", kManifestVersion},
      {"layout", layout_of(manifest)},
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
  if (manifest.in_place) out["directory"] = *manifest.in_place;
  const std::string compression = compression_text(manifest.compression);
  if (!compression.empty()) out["compression"] = compression;
  return out;
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
  const StrictObject top(root, what);
  std::vector<const char*> keys{"format",  "version", "layout", "name",   "created",
                                "bundled", "family",  "dtype",  "layers", "parameters",
                                "source",  "shards",  "files"};
  const bool is_in_place = root.at("layout") == kInPlaceLayout;
  const bool has_outliers = root.at("layout") == kOutliersLayout;
  const bool is_compressed = has_outliers || root.at("layout") == kCompressedLayout;
  if (is_in_place) keys.push_back("directory");
  if (is_compressed) keys.push_back("compression");
  AIRLLM_TRY_VOID(top.has_exactly(keys));
  Manifest out;
  if (is_in_place) {
    AIRLLM_TRY(out.in_place, top.text("directory"));
    if (!is_plain_absolute_path(*out.in_place)) return top.bad("directory is no plain path");
  }
  if (is_compressed) {
    AIRLLM_TRY(const std::string compression, top.text("compression"));
    const Result<Compression> parsed = read_compression_text(compression);
    if (!parsed || compression.empty() || compression_text(*parsed) != compression) {
      return top.bad("compression names no format");
    }
    out.compression = *parsed;
    if (has_outliers != (parsed->outliers > 0)) return top.bad("layout and compression disagree");
  }
  AIRLLM_TRY(out.name, top.text("name"));
  AIRLLM_TRY(out.created, top.text("created"));
  AIRLLM_TRY(out.bundled, top.flag("bundled"));
  AIRLLM_TRY(out.family, top.text("family"));
  AIRLLM_TRY(out.dtype, top.text("dtype"));
  AIRLLM_TRY(out.layers, top.number("layers"));
  AIRLLM_TRY(out.parameters, top.number("parameters"));
  const StrictObject source(top.at("source"), what + ": source");
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

bool is_plain_absolute_path(std::string_view path) {
  constexpr size_t kMostBytes = 4095;  // PATH_MAX, less the zero
  if (path.empty() || path.front() != '/' || path.size() > kMostBytes) return false;
  if (escape_for_display(path, true) != path) return false;
  return (std::string(path) + "/").find("/../") == std::string::npos;
}

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.') return false;
  if (find_invalid_utf8(name) != kValidUtf8) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

}  // namespace airllm::store

// manifest.json: what a model of the store consists of, with the hash of every part.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/store/compression.h"
#include "engine/store/shard.h"

namespace airllm::store {

inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kShardsName = "shards";  // the folder of shards beside it
inline constexpr const char* kManifestFormat = "airllm-model";
inline constexpr uint64_t kManifestVersion = 1;
inline constexpr const char* kInPlaceLayout = "in-place";
inline constexpr uint64_t kMaxManifestBytes = uint64_t{16} << 20;

// A file that a model was made from, as it was then.
struct SourceRecord {
  std::string name;
  uint64_t bytes = 0;
  uint64_t hash = 0;     // of a safetensors file's header; of all of config.json
  std::string identity;  // DiskFile::identity()

  bool operator==(const SourceRecord&) const = default;
};

// A small file that lies in the model as it came.
struct FileRecord {
  std::string name;
  uint64_t bytes = 0;
  uint64_t hash = 0;
};

struct Manifest {
  std::string name;
  std::string created;  // RFC 3339, UTC
  std::string family;
  std::string dtype;  // of most weights
  Compression compression;
  uint64_t layers = 0;
  uint64_t parameters = 0;
  bool bundled = false;
  std::string source_label;
  std::vector<SourceRecord> sources;
  std::vector<ShardRecord> shards;
  std::vector<FileRecord> files;
  // The folder, a real path, in which the weights are read in the files that they came in, those of
  // `sources`; the shards are then indexes (shard_index.h). Unset: the shards hold the weights.
  std::optional<std::string> in_place = std::nullopt;

  uint64_t bytes() const;            // of shards and files
  uint64_t bytes_elsewhere() const;  // of the files that are read in place
};

Json manifest_json(const Manifest& manifest);

// Strict: a missing, unknown or repeated key is a kData error, and so are another version or a
// file name that is not plain.
Result<Manifest> parse_manifest(std::string_view text, const std::string& what);

// The manifest of the model in `folder`.
Result<Manifest> read_manifest(Disk& disk, const std::string& folder);

// Pieces that the journal of an unfinished split shares.
Json source_json(const std::vector<SourceRecord>& sources);
Json shard_json(const ShardRecord& shard);
Result<std::vector<SourceRecord>> parse_sources(const Json& list, const std::string& what);
Result<std::vector<ShardRecord>> parse_shards(const Json& list, const std::string& what);

// Whether `name` can only mean a file of the folder itself: 1 to 255 bytes, no '/', no control
// characters, not "." or "..", no leading dot.
bool is_plain_file_name(std::string_view name);

// Whether `path` is absolute and shown as it is: UTF-8, no control characters, no "..".
bool is_plain_absolute_path(std::string_view path);

// The file of a model that an additional chat template, NAME.jinja, is kept in; and NAME of such a
// file, or nothing.
inline constexpr std::string_view kTemplateSuffix = ".jinja";
std::string chat_template_file(std::string_view name);
std::optional<std::string> chat_template_name(std::string_view file);

}  // namespace airllm::store

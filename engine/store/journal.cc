#include "engine/store/journal.h"

#include "base/json.h"

namespace airllm::store {
namespace {

constexpr const char* kJournalFormat = "airllm-split";
constexpr uint64_t kJournalVersion = 1;

Unexpected broken(const std::string& path, const std::string& why) {
  return Unexpected(ErrorCode::kData, path + ": " + why);
}

Result<std::string> text_at(const Json& root, const char* key, const std::string& path) {
  const auto at = root.find(key);
  if (at == root.end() || !at->is_string()) return broken(path, std::string(key) + " is missing");
  return at->get<std::string>();
}

Result<uint64_t> number_at(const Json& root, const char* key, const std::string& path) {
  const auto at = root.find(key);
  if (at == root.end() || !at->is_number_unsigned()) {
    return broken(path, std::string(key) + " is missing");
  }
  return at->get<uint64_t>();
}

}  // namespace

Status write_journal(Disk& disk, const std::string& folder, const Journal& journal) {
  Json shards = Json::array();
  for (const ShardRecord& shard : journal.shards) shards.push_back(shard_json(shard));
  const Json root{{"format", kJournalFormat},
                  {"version", kJournalVersion},
                  {"name", journal.name},
                  {"source_label", journal.source_label},
                  {"family", journal.family},
                  {"dtype", journal.dtype},
                  {"compression", compression_text(journal.compression)},
                  {"started", journal.started},
                  {"layers", journal.layers},
                  {"parameters", journal.parameters},
                  {"total_bytes", journal.total_bytes},
                  {"source", source_json(journal.sources)},
                  {"shards", std::move(shards)}};
  return write_text_atomically(disk, folder + "/" + kJournalName, dump_json(root) + "\n");
}

Result<Journal> read_journal(Disk& disk, const std::string& folder) {
  const std::string path = folder + "/" + kJournalName;
  AIRLLM_TRY(const std::unique_ptr<DiskFile> file, disk.open(path, OpenMode::kRead));
  AIRLLM_TRY(const std::string text, read_text(*file, kMaxManifestBytes));
  AIRLLM_TRY(const Json root, parse_json(text, path));
  if (!root.is_object()) return broken(path, "not an object");
  AIRLLM_TRY(const std::string format, text_at(root, "format", path));
  AIRLLM_TRY(const uint64_t version, number_at(root, "version", path));
  if (format != kJournalFormat || version != kJournalVersion) {
    return broken(path, "of another version of airllm");
  }
  Journal out;
  AIRLLM_TRY(out.name, text_at(root, "name", path));
  AIRLLM_TRY(out.source_label, text_at(root, "source_label", path));
  AIRLLM_TRY(out.family, text_at(root, "family", path));
  AIRLLM_TRY(out.dtype, text_at(root, "dtype", path));
  if (root.contains("compression")) {  // journals of older versions have none
    AIRLLM_TRY(const std::string compression, text_at(root, "compression", path));
    AIRLLM_TRY(out.compression, read_compression_text(compression));
  }
  AIRLLM_TRY(out.started, text_at(root, "started", path));
  AIRLLM_TRY(out.layers, number_at(root, "layers", path));
  AIRLLM_TRY(out.parameters, number_at(root, "parameters", path));
  AIRLLM_TRY(out.total_bytes, number_at(root, "total_bytes", path));
  for (const char* key : {"source", "shards"}) {
    if (!root.contains(key)) return broken(path, std::string(key) + " is missing");
  }
  AIRLLM_TRY(out.sources, parse_sources(root.at("source"), path + ": source"));
  AIRLLM_TRY(out.shards, parse_shards(root.at("shards"), path + ": shards"));
  return out;
}

}  // namespace airllm::store

// state.json in the folder of an unfinished split: what it is made from and which shards are on the
// disk for good. Written after each shard's fsync, so what it lists survives a crash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/store/compression.h"
#include "engine/store/disk.h"
#include "engine/store/manifest.h"

namespace airllm::store {

inline constexpr const char* kJournalName = "state.json";

struct Journal {
  std::string name;  // of the model to be
  std::string source_label;
  std::string family;
  std::string dtype;
  Compression compression;
  std::string started;  // RFC 3339, UTC
  uint64_t layers = 0;
  uint64_t parameters = 0;
  uint64_t total_bytes = 0;  // of all shards
  std::vector<SourceRecord> sources;
  std::vector<ShardRecord> shards;  // finished, in order
};

Status write_journal(Disk& disk, const std::string& folder, const Journal& journal);

// A journal of another version, or a broken one, is a kData error: the split cannot go on.
Result<Journal> read_journal(Disk& disk, const std::string& folder);

}  // namespace airllm::store

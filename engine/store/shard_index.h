// The index of a stage whose weights are read in the files that they came in: shards/NNN-name
// .index.json, in the place of a shard. It says in which file each tensor begins where, and the
// checksums of its blocks. airllm-shard(5) is the contract.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/model/stages.h"
#include "engine/store/disk.h"
#include "engine/store/manifest.h"
#include "engine/store/shard.h"

namespace airllm::store {

inline constexpr const char* kIndexFormat = "airllm-index";
inline constexpr uint64_t kIndexVersion = 1;
inline constexpr const char* kIndexSuffix = ".index.json";

// `files` are the names that ShardTensor::file counts.
std::string index_text(const std::string& stage, const std::vector<ShardTensor>& tensors,
                       const std::vector<std::string>& files);

// Strict: the tensors are those that the stage wants, in its order, each within one of the weight
// files of `sources` (all but the first), which ShardTensor::file counts from 0. Errors are kData.
Result<std::vector<ShardTensor>> parse_index(std::string_view text, const std::string& what,
                                             const model::StageSpec& stage,
                                             const std::vector<SourceRecord>& sources);

// The shard of `stage` by the index at `path`, which must be what `record` says. Its files are not
// opened.
Result<Shard> open_index(Disk& disk, const std::string& path, const model::StageSpec& stage,
                         const ShardRecord& record, const std::vector<SourceRecord>& sources);

}  // namespace airllm::store

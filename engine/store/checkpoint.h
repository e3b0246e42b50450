// A Hugging Face directory as the source of a model: its architecture, where each weight lies, and
// the small files that belong to it. Nothing in it is trusted, the descriptors included.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"
#include "engine/store/compression.h"
#include "engine/store/disk.h"
#include "engine/store/manifest.h"
#include "engine/store/packed.h"
#include "engine/store/tensor_index.h"
#include "kernels/number_format.h"

namespace airllm::store {

// Where a weight lies among the source files.
struct SourceTensor {
  size_t file = 0;            // index into Checkpoint::weight_files
  uint64_t offset_bytes = 0;  // in that file
  kernels::NumberFormat format = kernels::NumberFormat::kF32;
  kernels::NumberFormat stored_as = format;  // in the shard
  size_t outliers = 0;                       // inputs that the shard has in 16 bits
  bool is_transposed = false;                // lies there as [in, out]
  // Instead: what makes the numbers of `format`.
  std::shared_ptr<const PackedWeight> packed = nullptr;

  // Whether the packed form's own rows are stored.
  bool is_exact() const { return packed && packed->exact_format() == stored_as; }
};

struct SmallFile {
  std::string name;
  std::unique_ptr<DiskFile> file;
};

// Immutable after open(). Used by one thread.
struct Checkpoint {
  std::string label;  // the directory as the user wrote it
  std::string config_json;
  model::Architecture architecture;
  std::vector<model::StageSpec> stages;
  std::vector<std::vector<SourceTensor>> tensors;  // parallel to the stages' tensors
  WeightFiles weight_files;
  std::vector<SmallFile> small_files;  // config.json among them
  std::vector<SourceRecord> sources;   // config.json, then the weight files
  bool allows_nonfinite = false;       // weights that are infinite or NaN are kept, not refused
  // What a stream of the weights (run_stream.h) may take for them.
  uint64_t memory_bytes = engine::kSplitMemoryBytes;

  std::string dtype() const;  // what most weights are stored as
  bool bundled() const;       // config.json has "airllm_bundled": true
};

// Opens and checks everything before any weight is read: every tensor that the architecture wants
// is there once, in its shape, in a number format that can be used, and none is left over.
Result<Checkpoint> open_checkpoint(Disk& disk, engine::SourceDirectory& directory,
                                   const std::string& label);

// Has the weights stored as `compression` says; those that stay as they came, in the exact format
// of their packed form where they have one. `compression` learns whether that is all there is.
void compress(Checkpoint& checkpoint, Compression& compression);

// Whether the weights can be used in the files that they lie in. When not, a kData error names a
// tensor and says why.
Status check_usable_in_place(const Checkpoint& checkpoint);

// Whether every source file is still what it was when it was opened; else a kData error names it.
Status check_unchanged(const Checkpoint& checkpoint);

}  // namespace airllm::store

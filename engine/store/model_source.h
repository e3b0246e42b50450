// A model of the store as the source of another one, whose weights are stored in another format.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/store/checkpoint.h"
#include "engine/store/disk.h"
#include "engine/store/model_folder.h"

namespace airllm::store {

// The whole model `name` in `folder`. Its weights must be exact, as they came; ones that a split
// has compressed are a kUsage error. Those that are read in place must be readable by this process.
Result<Checkpoint> open_model_source(Disk& disk, const ModelFolder& folder,
                                     const std::string& name);

}  // namespace airllm::store

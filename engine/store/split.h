// From a Hugging Face directory to a model of the store; see store.h for what a caller may rely on.
//
// A split works in incoming/NAME/: shard after shard, each synced and then entered in the journal,
// then the small files, the manifest, and one rename into models/. So what is under models/ is
// whole, and a split that was interrupted at any point goes on behind its last finished shard.
#pragma once

#include <functional>
#include <stop_token>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/store/checkpoint.h"
#include "engine/store/disk.h"
#include "engine/store/shelf.h"
#include "engine/store/store.h"

namespace airllm::store {

// Called once with the size of the whole model, before anything is written for it; an error ends
// the split.
using PromiseRoom = std::function<Status(uint64_t bytes)>;

// Makes the model on `shelf`. The caller makes sure that nobody else works on a model of this name
// there. Store::split(), less what the result says of sharing.
// `open_source` opens what the model is made of.
Result<Json> split_checkpoint(Disk& disk, Shelf& shelf, const engine::SplitRequest& request,
                              const std::function<Result<Checkpoint>()>& open_source,
                              const PromiseRoom& promise_room, const ProgressFn& progress,
                              const std::stop_token& stop);

}  // namespace airllm::store

// The files of a model that reads its weights in place, opened by their paths where this process
// may, else by whom they belong to.
//
// The paths are a client's, and this process may be allowed more than that client. What it opens
// must have the identity of the files whose descriptors the client passed when the model was made,
// and every block of it must have the checksum that was made then; so nothing can be read that the
// client could not.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/store/disk.h"
#include "engine/store/manifest.h"
#include "engine/store/shard.h"

namespace airllm::store {

// Parallel to the weight files among the manifest's sources. A file that was changed or replaced is
// kData; one that cannot be opened has another code (may_be_passed()).
Result<OpenedFiles> open_originals(Disk& disk, const Manifest& manifest);

// The same, with descriptors that the model's owner passes. May wait for the owner.
Result<OpenedFiles> adopt_originals(Disk& disk, const Manifest& manifest,
                                    engine::OwnerFiles& owner);

// Whether an error of open_originals() means that another process may be able to open the file.
bool may_be_passed(const Error& error);

}  // namespace airllm::store

// How fast the store's disk reads, for `airllm doctor`.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "engine/store/disk.h"

namespace airllm::store {

struct ReadSpeed {
  std::string path;  // of the file that was read
  uint64_t bytes = 0;
  double seconds = 0;
  bool direct = false;  // past the page cache; else memory may have answered
};

// Reads from the longest file of `folder` with one reader, for at most a second and 64 MiB. Where
// there is none, a file of 8 MiB is made in `scratch_folder` and removed again. kCancelled when
// `stop` asks for it.
Result<ReadSpeed> measure_read_speed(Disk& disk, const std::string& folder,
                                     const std::string& scratch_folder,
                                     const std::stop_token& stop);

}  // namespace airllm::store

// A folder with a Hugging Face checkpoint, whose files are opened without being led astray: a file
// is a regular one directly in the folder, opened read-only and without blocking. Links are
// refused, but for those of a hub snapshot (the folder is .../REPO/snapshots/REV) into the same
// repository's blobs/ folder.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm {

class CheckpointFolder {
 public:
  // kNoInput when `path` is no folder.
  static Result<CheckpointFolder> open(const std::string& path);

  // A descriptor with `status` "ok", none with "missing", or none with the reason why the file is
  // refused.
  struct Opened {
    UniqueFd fd;
    std::string status;
  };
  // `name` is one component of a path.
  Opened open_file(const std::string& name) const { return open_in(fd_.get(), name, "../../"); }
  // The same in the folder `dir`, which lies below this one; `to_repository` leads from there to
  // the repository that a snapshot is of.
  Opened open_in(int dir, const std::string& name, const std::string& to_repository) const;

  // The name in blobs/ that the link `name` leads to; "" when it is no such link.
  std::string blob_of(const std::string& name) const { return blob_of(fd_.get(), name, "../../"); }

  int fd() const { return fd_.get(); }
  int blobs() const { return blobs_.get(); }  // -1 when this is no hub snapshot
  // Without links or dots.
  const std::string& real_path() const { return real_path_; }
  // The real path of the hub repository, or empty.
  const std::string& repository() const { return repository_; }

 private:
  CheckpointFolder(UniqueFd fd, std::string real_path);
  std::string blob_of(int dir, const std::string& name, const std::string& to_repository) const;

  UniqueFd fd_;
  UniqueFd blobs_;
  std::string real_path_;
  std::string repository_;
};

// One component of a path, with nothing that a terminal would obey.
bool is_plain_component(std::string_view name);

}  // namespace airllm

// The files that `airllm split DIR` passes to the daemon.
//
// The daemon names them, and is not trusted: a name is one path component, the file a regular one
// directly in DIR or in its folder additional_chat_templates, opened read-only and without
// blocking. Links are refused, but for those of a hub snapshot (DIR is .../REPO/snapshots/REV) into
// the same repository's blobs/ folder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::client {

class SourceDir {
 public:
  // kNoInput when `path` is no folder.
  static Result<SourceDir> open(const std::string& path);

  // What the file is for the daemon: a descriptor with `status` "ok", none with "missing", or none
  // with the reason why it is not passed.
  struct Opened {
    UniqueFd fd;
    std::string status;
  };
  Opened open_file(const std::string& name) const;

  // The names of the templates in additional_chat_templates, in order; none without that folder.
  Result<std::vector<std::string>> chat_templates() const;

  // DIR without links or dots.
  const std::string& real_path() const { return real_path_; }
  // The model's name when the user gives none (model_name_from_path), fit to be shown.
  std::string default_name() const;

 private:
  SourceDir(UniqueFd fd, std::string real_path);

  Opened open_in(int dir, const std::string& name, const std::string& to_repository) const;
  UniqueFd open_templates() const;  // invalid, with errno, when there is no such folder

  UniqueFd fd_;
  UniqueFd blobs_;  // invalid when DIR is no hub snapshot
  std::string real_path_;
  std::string repository_;  // real path of the hub repository, or empty
};

}  // namespace airllm::client

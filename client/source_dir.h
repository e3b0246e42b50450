// The files that `airllm split DIR` passes to the daemon.
//
// The daemon names them, and is not trusted: a name is that of a file in DIR, or in its folder
// additional_chat_templates, which base/checkpoint_folder.h opens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/checkpoint_folder.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::client {

class SourceDir {
 public:
  // kNoInput when `path` is no folder.
  static Result<SourceDir> open(const std::string& path);

  // What the file is for the daemon.
  using Opened = CheckpointFolder::Opened;
  Opened open_file(const std::string& name) const;

  // The names of the templates in additional_chat_templates, in order; none without that folder.
  Result<std::vector<std::string>> chat_templates() const;

  const CheckpointFolder& folder() const { return folder_; }
  // DIR without links or dots.
  const std::string& real_path() const { return folder_.real_path(); }
  // The model's name when the user gives none (model_name_from_path), fit to be shown.
  std::string default_name() const;

 private:
  explicit SourceDir(CheckpointFolder folder) : folder_(std::move(folder)) {}

  UniqueFd open_templates() const;  // invalid, with errno, when there is no such folder

  CheckpointFolder folder_;
};

}  // namespace airllm::client

#include "engine/store/originals.h"

#include <algorithm>

#include "base/checkpoint_folder.h"

namespace airllm::store {
namespace {

constexpr size_t kNamesPerCall = 64;  // what OwnerFiles takes at once

std::string again_with(const Manifest& manifest) {
  return "if it is what you want: airllm rm " + manifest.name + " && airllm split --in-place " +
         *manifest.in_place + " --name " + manifest.name;
}

// Takes the descriptor over if it is of the file that `source` was.
Result<std::shared_ptr<const DiskFile>> check_and_adopt(Disk& disk, const Manifest& manifest,
                                                        const SourceRecord& source, UniqueFd fd) {
  const std::string path = *manifest.in_place + "/" + source.name;
  AIRLLM_TRY(std::unique_ptr<DiskFile> file,
             disk.adopt(std::move(fd), path, OpenMode::kReadDirect));
  AIRLLM_TRY(const std::string identity, file->identity());
  if (identity != source.identity) {
    return Unexpected(ErrorCode::kData,
                      path + ": it was changed or replaced since the model " + manifest.name +
                          ", which reads it in place, was made of it",
                      again_with(manifest));
  }
  return std::shared_ptr<const DiskFile>(std::move(file));
}

}  // namespace

Result<OpenedFiles> open_originals(Disk& disk, const Manifest& manifest) {
  Result<CheckpointFolder> found = CheckpointFolder::open(*manifest.in_place);
  if (!found) {
    Error error = std::move(found).error();
    error.remedy.clear();  // it is for one who names a folder
    return Unexpected(std::move(error));
  }
  const CheckpointFolder folder = std::move(found).value();
  OpenedFiles out;
  for (size_t i = 1; i < manifest.sources.size(); ++i) {
    const SourceRecord& source = manifest.sources[i];
    CheckpointFolder::Opened opened = folder.open_file(source.name);
    if (!opened.fd.valid()) {
      return Unexpected(ErrorCode::kNoInput,
                        *manifest.in_place + "/" + source.name + ": " + opened.status);
    }
    AIRLLM_TRY(auto file, check_and_adopt(disk, manifest, source, std::move(opened.fd)));
    out.push_back(std::move(file));
  }
  return out;
}

Result<OpenedFiles> adopt_originals(Disk& disk, const Manifest& manifest,
                                    engine::OwnerFiles& owner) {
  std::vector<std::string> names;
  for (size_t i = 1; i < manifest.sources.size(); ++i) names.push_back(manifest.sources[i].name);
  OpenedFiles out;
  for (size_t begin = 0; begin < names.size(); begin += kNamesPerCall) {
    const std::span<const std::string> group =
        std::span(names).subspan(begin, std::min(kNamesPerCall, names.size() - begin));
    AIRLLM_TRY(std::vector<UniqueFd> fds, owner.open_in(*manifest.in_place, group));
    for (size_t i = 0; i < group.size(); ++i) {
      if (i >= fds.size() || !fds[i].valid()) {
        return Unexpected(ErrorCode::kNoInput,
                          *manifest.in_place + "/" + group[i] + ": it is not there any more",
                          "bring it back, or remove the model: airllm rm " + manifest.name);
      }
      AIRLLM_TRY(auto file, check_and_adopt(disk, manifest, manifest.sources[1 + begin + i],
                                            std::move(fds[i])));
      out.push_back(std::move(file));
    }
  }
  return out;
}

bool may_be_passed(const Error& error) {
  return error.code == ErrorCode::kNoInput || error.code == ErrorCode::kNoPermission;
}

}  // namespace airllm::store

#include "client/source_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>

#include "base/model_name.h"
#include "base/utf8.h"
#include "protocol/messages.h"

namespace airllm::client {
namespace {

constexpr const char* kTemplatesFolder = "additional_chat_templates";
constexpr std::string_view kTemplateSuffix = ".jinja";

std::string reason(int error) { return std::generic_category().message(error); }

SourceDir::Opened refuse(std::string status) { return {UniqueFd(), std::move(status)}; }

}  // namespace

Result<SourceDir> SourceDir::open(const std::string& path) {
  AIRLLM_TRY(CheckpointFolder folder, CheckpointFolder::open(path));
  return SourceDir(std::move(folder));
}

UniqueFd SourceDir::open_templates() const {
  return UniqueFd(
      openat(folder_.fd(), kTemplatesFolder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

SourceDir::Opened SourceDir::open_file(const std::string& name) const {
  const std::string folder = std::string(kTemplatesFolder) + "/";
  if (!name.starts_with(folder)) return folder_.open_file(name);
  const std::string file = name.substr(folder.size());
  if (!is_plain_component(file)) return refuse("not a plain file name");
  const UniqueFd templates = open_templates();
  if (!templates.valid()) return refuse(errno == ENOENT ? "missing" : reason(errno));
  return folder_.open_in(templates.get(), file, "../../../");
}

Result<std::vector<std::string>> SourceDir::chat_templates() const {
  std::vector<std::string> names;
  const UniqueFd templates = open_templates();
  const std::string path = real_path() + "/" + kTemplatesFolder;
  if (!templates.valid()) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return names;
    return Unexpected(errno_error("cannot open '" + path + "'", errno));
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(
      fdopendir(fcntl(templates.get(), F_DUPFD_CLOEXEC, 0)), closedir);
  if (folder == nullptr) return Unexpected(errno_error("cannot list '" + path + "'", errno));
  while (const dirent* entry = readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (!name.ends_with(kTemplateSuffix) || name == kTemplateSuffix) continue;
    if (!is_plain_component(name) || find_invalid_utf8(name) != kValidUtf8) {
      return Unexpected(ErrorCode::kData,
                        path + ": a template has the name '" + escape_for_display(name) + "'",
                        "give it a plain name");
    }
    names.push_back(name);
    if (names.size() > protocol::kMaxChatTemplates) {
      return Unexpected(
          ErrorCode::kData,
          path + ": more than " + std::to_string(protocol::kMaxChatTemplates) + " templates",
          "keep those that are needed");
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string SourceDir::default_name() const {
  return escape_for_display(model_name_from_path(real_path()), true);
}

}  // namespace airllm::client

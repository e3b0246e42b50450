#include "client/source_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "base/model_name.h"
#include "base/utf8.h"
#include "protocol/messages.h"

namespace airllm::client {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTemplatesFolder = "additional_chat_templates";
constexpr std::string_view kTemplateSuffix = ".jinja";
constexpr int kFileFlags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;

std::string reason(int error) { return std::generic_category().message(error); }

// One component of a path, with nothing that a terminal would obey.
bool is_plain_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > NAME_MAX) return false;
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) {
    return false;
  }
  return escape_for_display(name, true) == name;
}

std::string_view describe(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISLNK(mode)) return "a symbolic link";
  return "a device";
}

SourceDir::Opened refuse(std::string status) { return {UniqueFd(), std::move(status)}; }

// A regular file `name` in the folder `dir`. Looked at before it is opened, since opening a device
// can do something, and again after, since it can be exchanged in between.
SourceDir::Opened open_regular(int dir, const std::string& name) {
  struct stat status {};
  if (fstatat(dir, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return refuse(errno == ENOENT ? "missing" : reason(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    return refuse("not a regular file but " + std::string(describe(status.st_mode)));
  }
  UniqueFd file(openat(dir, name.c_str(), kFileFlags));
  if (!file.valid()) return refuse(reason(errno));
  if (fstat(file.get(), &status) != 0) return refuse(reason(errno));
  if (!S_ISREG(status.st_mode)) {
    return refuse("not a regular file but " + std::string(describe(status.st_mode)));
  }
  return {std::move(file), "ok"};
}

// The target of the link `name`; nothing when it is no link.
std::optional<std::string> link_target(int dir, const std::string& name) {
  std::array<char, PATH_MAX> target;
  const ssize_t length = readlinkat(dir, name.c_str(), target.data(), target.size());
  if (length < 0 || static_cast<size_t>(length) == target.size()) return std::nullopt;
  return std::string(target.data(), static_cast<size_t>(length));
}

// REPO of ".../REPO/snapshots/REV", or "".
std::string repository_of(const std::string& real_path) {
  const fs::path snapshots = fs::path(real_path).parent_path();
  return snapshots.filename() == "snapshots" ? snapshots.parent_path().string() : std::string();
}

}  // namespace

SourceDir::SourceDir(UniqueFd fd, std::string real_path)
    : fd_(std::move(fd)), real_path_(std::move(real_path)), repository_(repository_of(real_path_)) {
  if (repository_.empty()) return;
  blobs_.reset(
      ::open((repository_ + "/blobs").c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

Result<SourceDir> SourceDir::open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    const int error = errno;
    return Unexpected(errno_error("cannot open the folder '" + path + "'", error,
                                  "name the folder that holds config.json and the weights, not a "
                                  "file"));
  }
  std::error_code failure;
  const fs::path real = fs::canonical(path, failure);
  if (failure)
    return Unexpected(errno_error("cannot resolve '" + path + "'", failure.value(),
                                  "give the folder's full path"));
  return SourceDir(std::move(fd), real.string());
}

UniqueFd SourceDir::open_templates() const {
  return UniqueFd(
      openat(fd_.get(), kTemplatesFolder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

SourceDir::Opened SourceDir::open_file(const std::string& name) const {
  const std::string folder = std::string(kTemplatesFolder) + "/";
  if (!name.starts_with(folder)) return open_in(fd_.get(), name, "../../");
  const std::string file = name.substr(folder.size());
  if (!is_plain_name(file)) return refuse("not a plain file name");
  const UniqueFd templates = open_templates();
  if (!templates.valid()) return refuse(errno == ENOENT ? "missing" : reason(errno));
  return open_in(templates.get(), file, "../../../");
}

Result<std::vector<std::string>> SourceDir::chat_templates() const {
  std::vector<std::string> names;
  const UniqueFd templates = open_templates();
  const std::string path = real_path_ + "/" + kTemplatesFolder;
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
    if (!is_plain_name(name) || find_invalid_utf8(name) != kValidUtf8) {
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

// `to_repository` leads from the folder `dir` to the repository that a snapshot is of.
SourceDir::Opened SourceDir::open_in(int dir, const std::string& name,
                                     const std::string& to_repository) const {
  if (!is_plain_name(name)) return refuse("not a plain file name");
  const std::optional<std::string> target = link_target(dir, name);
  if (!target) return open_regular(dir, name);
  // The link is followed by hand and its file opened by name in blobs/, so that exchanging the
  // link meanwhile gains nothing.
  for (const std::string& prefix : {to_repository + "blobs/", repository_ + "/blobs/"}) {
    const std::string blob = target->starts_with(prefix) ? target->substr(prefix.size()) : "";
    if (!is_plain_name(blob) || !blobs_.valid()) continue;
    Opened opened = open_regular(blobs_.get(), blob);
    if (opened.status == "missing") opened.status = "the link's file is not in blobs/";
    return opened;
  }
  return refuse("a symbolic link that leads elsewhere than to the repository's blobs/");
}

std::string SourceDir::default_name() const {
  return escape_for_display(model_name_from_path(real_path_), true);
}

}  // namespace airllm::client

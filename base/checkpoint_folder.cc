#include "base/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>

#include "base/utf8.h"

namespace airllm {
namespace {

namespace fs = std::filesystem;

constexpr int kFileFlags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;

std::string reason(int error) { return std::generic_category().message(error); }

std::string_view describe(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISLNK(mode)) return "a symbolic link";
  return "a device";
}

CheckpointFolder::Opened refuse(std::string status) { return {UniqueFd(), std::move(status)}; }

// A regular file `name` in the folder `dir`. Looked at before it is opened, since opening a device
// can do something, and again after, since it can be exchanged in between.
CheckpointFolder::Opened open_regular(int dir, const std::string& name) {
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

bool is_plain_component(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > NAME_MAX) return false;
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) {
    return false;
  }
  return escape_for_display(name, true) == name;
}

CheckpointFolder::CheckpointFolder(UniqueFd fd, std::string real_path)
    : fd_(std::move(fd)), real_path_(std::move(real_path)), repository_(repository_of(real_path_)) {
  if (repository_.empty()) return;
  blobs_.reset(
      ::open((repository_ + "/blobs").c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

Result<CheckpointFolder> CheckpointFolder::open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
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
  return CheckpointFolder(std::move(fd), real.string());
}

std::string CheckpointFolder::blob_of(int dir, const std::string& name,
                                      const std::string& to_repository) const {
  const std::optional<std::string> target = link_target(dir, name);
  if (!target || !blobs_.valid()) return {};
  for (const std::string& prefix : {to_repository + "blobs/", repository_ + "/blobs/"}) {
    std::string blob = target->starts_with(prefix) ? target->substr(prefix.size()) : "";
    if (is_plain_component(blob)) return blob;
  }
  return {};
}

CheckpointFolder::Opened CheckpointFolder::open_in(int dir, const std::string& name,
                                                   const std::string& to_repository) const {
  if (!is_plain_component(name)) return refuse("not a plain file name");
  if (!link_target(dir, name)) return open_regular(dir, name);
  // The link is followed by hand and its file opened by name in blobs/, so that exchanging the
  // link meanwhile gains nothing.
  const std::string blob = blob_of(dir, name, to_repository);
  if (blob.empty()) {
    return refuse("a symbolic link that leads elsewhere than to the repository's blobs/");
  }
  Opened opened = open_regular(blobs_.get(), blob);
  if (opened.status == "missing") opened.status = "the link's file is not in blobs/";
  return opened;
}

}  // namespace airllm

#include "client/user_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/unique_fd.h"

namespace airllm::client {
namespace {

namespace fs = std::filesystem;

Status write_and_sync(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Unexpected(errno_error("cannot write " + path, errno));
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return Unexpected(errno_error("cannot write " + path, errno));
  return {};
}

}  // namespace

Status write_user_file(const std::string& path, std::string_view text) {
  std::error_code failure;
  fs::create_directories(fs::path(path).parent_path(), failure);
  if (failure) return Unexpected(errno_error("cannot make the folder of " + path, failure.value()));
  std::string temporary = path + ".XXXXXX";
  const UniqueFd file(mkostemp(temporary.data(), O_CLOEXEC));
  if (!file.valid()) return Unexpected(errno_error("cannot write " + temporary, errno));
  Status status = write_and_sync(file.get(), text, temporary);
  if (status && rename(temporary.c_str(), path.c_str()) != 0) {
    status = Unexpected(errno_error("cannot write " + path, errno));
  }
  if (!status) unlink(temporary.c_str());
  return status;
}

}  // namespace airllm::client

#include "client/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "client/output.h"
#include "client/socket_path.h"

namespace airllm::client {
namespace {

Unexpected spool_error(const std::string& folder) {
  return Unexpected(errno_error("cannot keep the answer's log-probabilities in " + folder, errno,
                                "set TMPDIR to a folder with room, or use --stream-json"));
}

std::string spool_folder() { return environment("TMPDIR").value_or("/var/tmp"); }

// A file without a name where the file system can, else one whose name is removed at once.
UniqueFd make_file(const std::string& folder) {
  UniqueFd file(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.valid()) return file;
  std::string name = folder + "/airllm.XXXXXX";
  file.reset(mkostemp(name.data(), O_CLOEXEC));
  if (file.valid()) unlink(name.c_str());
  return file;
}

}  // namespace

Status Spool::append(std::string_view text) {
  text_ += text;
  return text_.size() > kMemoryBytes ? flush() : Status();
}

Status Spool::flush() {
  const std::string folder = spool_folder();
  if (!file_.valid()) file_ = make_file(folder);
  if (!file_.valid()) return spool_error(folder);
  std::string_view rest = text_;
  while (!rest.empty()) {
    const ssize_t written = write(file_.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return spool_error(folder);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  text_.clear();
  return {};
}

Status Spool::print(bool ignore_signals) {
  if (file_.valid()) {
    std::array<char, 65536> buffer;
    off_t at = 0;
    for (;;) {
      const ssize_t got = pread(file_.get(), buffer.data(), buffer.size(), at);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return spool_error(spool_folder());
      if (got == 0) break;
      at += got;
      AIRLLM_TRY_VOID(
          print_out(std::string_view(buffer.data(), static_cast<size_t>(got)), ignore_signals));
    }
  }
  return print_out(text_, ignore_signals);
}

}  // namespace airllm::client

// A file without a name, for descriptors.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "base/check.h"
#include "base/unique_fd.h"

namespace airllm::fetch {

class ScratchFile {
 public:
  ScratchFile() : fd_(::memfd_create("scratch", MFD_CLOEXEC)) { AIRLLM_CHECK(fd_.valid()); }

  int fd() const { return fd_.get(); }
  UniqueFd descriptor() const { return UniqueFd(::dup(fd_.get())); }

  std::string content() const {
    std::string out(static_cast<size_t>(::lseek(fd_.get(), 0, SEEK_END)), '\0');
    AIRLLM_CHECK(::pread(fd_.get(), out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()));
    return out;
  }
  void set_content(std::string_view text) {
    AIRLLM_CHECK(::ftruncate(fd_.get(), 0) == 0);
    write(0, text);
  }
  void write(uint64_t offset, std::string_view text) {
    AIRLLM_CHECK(::pwrite(fd_.get(), text.data(), text.size(), static_cast<off_t>(offset)) ==
                 static_cast<ssize_t>(text.size()));
  }

 private:
  UniqueFd fd_;
};

}  // namespace airllm::fetch

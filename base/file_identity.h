// What tells whether a file is still the same one.
#pragma once

#include <sys/stat.h>

#include <string>

namespace airllm {

// Length, inode and modification time in one comparable text. (Not the device: its number may
// change when the machine starts again.)
inline std::string file_identity(const struct stat& info) {
  return std::to_string(info.st_size) + ":" + std::to_string(info.st_ino) + ":" +
         std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec);
}

}  // namespace airllm

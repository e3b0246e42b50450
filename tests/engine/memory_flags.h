// What the kernel says of a mapping of this process.
#pragma once

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace airllm::testing {

// Whether the mapping that holds `address` has MADV_DONTDUMP ("dd" in /proc/self/smaps).
inline bool is_left_out_of_core_files(const void* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::ifstream smaps("/proc/self/smaps");
  bool is_in_it = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      is_in_it = begin <= wanted && wanted < end;
    } else if (is_in_it && line.starts_with("VmFlags:")) {
      return line.find(" dd") != std::string::npos;
    }
  }
  return false;
}

}  // namespace airllm::testing

// Numbers as files and sockets have them: the least significant byte first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace airllm {

// The number that these bytes make, at most eight.
constexpr uint64_t from_little_endian(std::string_view bytes) {
  uint64_t number = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    number |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return number;
}

}  // namespace airllm

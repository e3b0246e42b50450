// How the host reaches the memory that a pass computes in, which may be a device's own.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace airllm::model {

// In the order of what is computed, and waited for: for what is small.
class MemoryAccess {
 public:
  virtual ~MemoryAccess() = default;
  virtual void write(std::byte* to, std::span<const std::byte> from) = 0;
  virtual void read(std::span<std::byte> to, const std::byte* from) = 0;
  // Where the host can read what lies at `from`: there, or in `buffer`, of which that is a copy.
  virtual const std::byte* look(const std::byte* from, size_t bytes,
                                std::vector<std::byte>& buffer) {
    buffer.resize(bytes);
    read(buffer, from);
    return buffer.data();
  }
};

// Of what computes in the host's memory.
MemoryAccess& host_memory();

}  // namespace airllm::model

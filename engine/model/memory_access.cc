#include "engine/model/memory_access.h"

#include <cstring>

namespace airllm::model {
namespace {

class HostMemory : public MemoryAccess {
 public:
  void write(std::byte* to, std::span<const std::byte> from) override {
    std::memcpy(to, from.data(), from.size());
  }
  void read(std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), from, to.size());
  }
  const std::byte* look(const std::byte* from, size_t, std::vector<std::byte>&) override {
    return from;
  }
};

}  // namespace

MemoryAccess& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace airllm::model

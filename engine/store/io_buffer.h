// Memory that files are read into and written from past the page cache. It lies in huge pages where
// the system gives them, since a disk takes requests of few long pieces several times as fast as
// requests of many short ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace airllm::store {

class IoBuffer {
 public:
  IoBuffer() = default;
  ~IoBuffer();
  IoBuffer(const IoBuffer&) = delete;
  IoBuffer& operator=(const IoBuffer&) = delete;

  // At least `bytes` bytes on a page boundary. What was there before is lost when it must grow. Too
  // little memory is a kTemporary error.
  Result<std::span<std::byte>> reserve(uint64_t bytes);
  std::span<std::byte> memory() const { return memory_; }

 private:
  void release();

  std::span<std::byte> memory_;
};

}  // namespace airllm::store

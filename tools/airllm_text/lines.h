// Lines from one descriptor and to another. What was written is flushed before every read that may
// wait, so that a peer that talks line by line gets each answer, and bulk is written in blocks.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm::tools {

// Not thread-safe. The descriptors are the caller's.
class Lines {
 public:
  Lines(int in, int out) : in_(in), out_(out) {}

  // The next line without its newline, until the next call; nothing at the end. The last line need
  // not end with a newline.
  Result<std::optional<std::string_view>> next();
  // All that is left.
  Result<std::string> rest();

  Status write_line(std::string_view line);
  Status flush();

 private:
  Result<bool> fill();  // false at the end of the input

  int in_, out_;
  std::string read_;
  size_t begin_ = 0;    // of what next() has not given out
  size_t scanned_ = 0;  // bytes of read_ that hold no newline from begin_ on
  std::string written_;
};

}  // namespace airllm::tools

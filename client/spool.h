// Text that is collected now and printed at the end: in memory while it is small, then in an
// unnamed temporary file, since the log-probabilities of a long answer can take gigabytes.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace airllm::client {

class Spool {
 public:
  // What stays in memory.
  static constexpr size_t kMemoryBytes = size_t{8} << 20;

  // kIo when the temporary file cannot be made or written. Its folder is TMPDIR, else /var/tmp.
  Status append(std::string_view text);
  // Prints all of it to stdout.
  Status print(bool ignore_signals);
  bool empty() const { return text_.empty() && !file_.valid(); }

 private:
  Status flush();

  std::string text_;  // what is not in the file
  UniqueFd file_;
};

}  // namespace airllm::client

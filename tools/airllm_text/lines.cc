#include "tools/airllm_text/lines.h"

#include <unistd.h>

#include <cerrno>

namespace airllm::tools {
namespace {

constexpr size_t kBlock = 1 << 18;

}  // namespace

Result<bool> Lines::fill() {
  AIRLLM_TRY_VOID(flush());
  const size_t old_size = read_.size();
  read_.resize(old_size + kBlock);
  ssize_t count = 0;
  do {
    count = ::read(in_, read_.data() + old_size, kBlock);
  } while (count < 0 && errno == EINTR);
  const int error = errno;
  read_.resize(old_size + (count > 0 ? static_cast<size_t>(count) : 0));
  if (count < 0) return Unexpected(errno_error("standard input", error));
  return count > 0;
}

Result<std::optional<std::string_view>> Lines::next() {
  using Line = std::optional<std::string_view>;
  for (;;) {
    if (const size_t end = read_.find('\n', scanned_); end != std::string::npos) {
      const std::string_view line = std::string_view(read_).substr(begin_, end - begin_);
      begin_ = scanned_ = end + 1;
      return Line(line);
    }
    read_.erase(0, begin_);
    begin_ = 0;
    scanned_ = read_.size();
    AIRLLM_TRY(const bool more, fill());
    if (more) continue;
    begin_ = scanned_ = read_.size();
    return read_.empty() ? Line() : Line(read_);
  }
}

Result<std::string> Lines::rest() {
  for (;;) {
    AIRLLM_TRY(const bool more, fill());
    if (!more) break;
  }
  std::string text = read_.substr(begin_);
  begin_ = scanned_ = read_.size();
  return text;
}

Status Lines::write_line(std::string_view line) {
  written_ += line;
  written_ += '\n';
  return written_.size() >= kBlock ? flush() : Status();
}

Status Lines::flush() {
  std::string_view left = written_;
  while (!left.empty()) {
    const ssize_t count = ::write(out_, left.data(), left.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Unexpected(errno_error("standard output", errno));
    left.remove_prefix(static_cast<size_t>(count));
  }
  written_.clear();
  return {};
}

}  // namespace airllm::tools

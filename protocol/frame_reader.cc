#include "protocol/framing.h"

namespace airllm::protocol {
namespace {

// A buffer that one long frame has grown is given back when it is empty.
constexpr size_t kKeepBytes = size_t{1} << 20;

uint64_t frame_length(std::string_view bytes) {
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<uint8_t>(bytes[i]);
  return length;
}

}  // namespace

void FrameReader::append(std::string_view bytes) {
  if (consumed_ > 0) {
    buffer_.erase(0, consumed_);
    consumed_ = 0;
  }
  if (buffer_.empty() && buffer_.capacity() > kKeepBytes) buffer_.shrink_to_fit();
  buffer_.append(bytes);
}

Result<std::optional<std::string>> FrameReader::next() {
  const std::string_view rest = std::string_view(buffer_).substr(consumed_);
  if (rest.size() < kLengthBytes) return std::optional<std::string>();
  const uint64_t length = frame_length(rest);
  if (length == 0 || length > limit_) {
    return Unexpected(ErrorCode::kProtocol,
                      "a frame of " + std::to_string(length) + " bytes; a frame has 1 to " +
                          std::to_string(limit_),
                      "the peer does not speak airllm's protocol");
  }
  if (rest.size() - kLengthBytes < length) return std::optional<std::string>();
  consumed_ += kLengthBytes + length;
  return std::optional<std::string>(rest.substr(kLengthBytes, length));
}

void FrameReader::drop() {
  std::string().swap(buffer_);  // an assignment would keep the capacity
  consumed_ = 0;
}

}  // namespace airllm::protocol

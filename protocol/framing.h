// Frames: a u32 little-endian payload length, then the payload, a msgpack map. Pure bytes to
// structs and back; no sockets.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "protocol/messages.h"

namespace airllm::protocol {

// Of a frame's length, in front of it; little-endian.
inline constexpr size_t kLengthBytes = 4;

// One whole frame, length included. A message whose payload exceeds kMaxFrameBytes is a kUsage
// error that names the limit.
Result<std::string> encode(const ClientMessage& message);
Result<std::string> encode(const ServerMessage& message);

// Decodes one payload (without the length). Everything in it is untrusted: depth, element counts
// and types are checked before memory is taken. Bad payloads are kProtocol errors.
Result<ClientMessage> decode_client_message(std::string_view payload);
Result<ServerMessage> decode_server_message(std::string_view payload);

// Cuts a stream of bytes into payloads. Not thread-safe.
class FrameReader {
 public:
  explicit FrameReader(uint64_t max_frame_bytes = kMaxFrameBytes) : limit_(max_frame_bytes) {}

  // From now on payloads may be this long.
  void set_limit(uint64_t max_frame_bytes) { limit_ = max_frame_bytes; }
  void append(std::string_view bytes);
  // The next whole payload, or nothing when more bytes are needed. A length of zero or above the
  // limit is a kProtocol error, found as soon as the four bytes are there; the stream is then lost.
  Result<std::optional<std::string>> next();
  // Forgets what has come, and gives its memory back.
  void drop();
  // Bytes held that are not a whole frame yet.
  size_t pending_bytes() const { return buffer_.size() - consumed_; }

 private:
  uint64_t limit_;
  std::string buffer_;
  size_t consumed_ = 0;
};

}  // namespace airllm::protocol

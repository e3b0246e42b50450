// Writing one frame, with msgpack-c's packer.
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <msgpack.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "protocol/framing.h"
#include "protocol/messages.h"
#include "protocol/msgpack_view.h"

namespace airllm::protocol {

inline constexpr double kBeyondIntegers = 0x1p63;

struct WriterSink {
  std::string bytes;
  void write(const char* data, size_t size) { bytes.append(data, size); }
};

// Writes values and remembers the first string that is not UTF-8: from a client that is an error,
// from the daemon (a file name in a message, say) the bad bytes are replaced.
class Writer {
 public:
  explicit Writer(bool replace_bad_text) : replace_bad_text_(replace_bad_text) {
    sink_.bytes.assign(kLengthBytes, '\0');
  }

  void map(size_t pairs) { packer_.pack_map(checked(pairs)); }
  void array(size_t elements) { packer_.pack_array(checked(elements)); }
  void key(std::string_view name) { raw_text(name); }
  void reserve(size_t bytes) { sink_.bytes.reserve(sink_.bytes.size() + bytes); }

  void value(std::string_view text) {
    const size_t bad = find_invalid_utf8(text);
    if (bad == kValidUtf8) return raw_text(text);
    if (!replace_bad_text_ && bad_text_.empty()) {
      bad_text_ = "text is not UTF-8 at byte " + std::to_string(bad);
    }
    raw_text(escape_for_display(text));
  }
  void value(const std::string& text) { value(std::string_view(text)); }
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool flag) { flag ? packer_.pack_true() : packer_.pack_false(); }
  // msgpack-c makes integers of whole numbers, and tries to of 2^64, which none of 64 bits holds.
  void value(double number) {
    if (std::abs(number) < kBeyondIntegers) {
      packer_.pack_double(number);
    } else {
      float64(number);
    }
  }
  void value(const Bytes& content) {
    const uint32_t size = checked(content.bytes.size());
    packer_.pack_bin(size);
    packer_.pack_bin_body(content.bytes.data(), size);
  }
  template <std::integral T>
  void value(T number) {
    packer_.pack(number);
  }
  template <typename T>
  void value(const std::vector<T>& list) {
    array(list.size());
    for (const T& element : list) value(element);
  }

  template <typename T>
  void field(std::string_view name, const T& content) {
    key(name);
    value(content);
  }

  // The frame, its length filled in.
  Result<std::string> finish() {
    if (!bad_text_.empty()) return Unexpected(ErrorCode::kData, bad_text_, "give text as UTF-8");
    const uint64_t payload = sink_.bytes.size() - kLengthBytes;
    if (too_long_ || payload > kMaxFrameBytes) {
      return Unexpected(ErrorCode::kUsage,
                        "the message is longer than a frame may be (" +
                            std::to_string(kMaxFrameBytes) + " bytes)",
                        "use a shorter prompt");
    }
    for (size_t i = 0; i < kLengthBytes; ++i) {
      sink_.bytes[i] = static_cast<char>(payload >> (8 * i) & 0xffU);
    }
    return std::move(sink_.bytes);
  }

 private:
  void float64(double number) {
    const auto bits = std::bit_cast<uint64_t>(number);
    sink_.bytes += '\xcb';
    for (unsigned shift = 64; shift > 0; shift -= 8) {
      sink_.bytes += static_cast<char>(bits >> (shift - 8) & 0xffU);
    }
  }

  void raw_text(std::string_view text) {
    const uint32_t size = checked(text.size());
    packer_.pack_str(size);
    packer_.pack_str_body(text.data(), size);
  }

  // msgpack counts in 32 bits; what does not fit is far beyond a frame.
  uint32_t checked(size_t count) {
    if (count <= kMaxFrameBytes) return static_cast<uint32_t>(count);
    too_long_ = true;
    return 0;
  }

  WriterSink sink_;
  msgpack::packer<WriterSink> packer_{sink_};
  bool replace_bad_text_;
  bool too_long_ = false;
  std::string bad_text_;
};

// Fields of which some may be unset: they are counted first, since a map begins with its count.
template <typename T>
size_t count(const std::optional<T>& value) {
  return value ? 1 : 0;
}

template <typename T>
void optional_field(Writer& out, std::string_view name, const std::optional<T>& value) {
  if (value) out.field(name, *value);
}

}  // namespace airllm::protocol

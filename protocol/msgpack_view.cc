#include "protocol/msgpack_view.h"

#include <array>
#include <bit>
#include <limits>

#include "base/utf8.h"

namespace airllm::protocol {
namespace {

Unexpected broken(std::string message) {
  return Unexpected(ErrorCode::kProtocol, std::move(message),
                    "client and daemon should be of the same version");
}

Unexpected wrong_type(const std::string& where, const char* wanted) {
  return broken(where + ": expected " + wanted);
}

uint64_t big_endian(std::string_view bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

uint64_t sign_extended(uint64_t value, size_t bytes) {
  const auto shift = static_cast<unsigned>(64 - 8 * bytes);
  return static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
}

bool is_sized(Kind kind) {
  return kind == Kind::kString || kind == Kind::kBinary || kind == Kind::kExtension;
}

// Formats with the count or value inside the first byte.
std::optional<Head> single_byte_head(uint8_t first) {
  if (first <= 0x7f) return Head{Kind::kUnsigned, 1, first, 0};
  if (first <= 0x8f) return Head{Kind::kMap, 1, first & 0x0fU, 0};
  if (first <= 0x9f) return Head{Kind::kArray, 1, first & 0x0fU, 0};
  if (first <= 0xbf) return Head{Kind::kString, 1, first & 0x1fU, 0};
  if (first >= 0xe0) return Head{Kind::kNegative, 1, sign_extended(first, 1), 0};
  switch (first) {
    case 0xc0: return Head{Kind::kNil, 1, 0, 0};
    case 0xc2: return Head{Kind::kBool, 1, 0, 0};
    case 0xc3: return Head{Kind::kBool, 1, 1, 0};
    default: return std::nullopt;
  }
}

// Formats whose count, value or length follows the first byte: kind, and how many bytes follow.
struct Format {
  Kind kind = Kind::kNil;
  size_t number_bytes = 0;  // 0: no such format
};

Format format_of(uint8_t first) {
  constexpr auto kTable = std::to_array<Format>({
      {Kind::kBinary, 1},    {Kind::kBinary, 2},    {Kind::kBinary, 4},     // c4 c5 c6
      {Kind::kExtension, 1}, {Kind::kExtension, 2}, {Kind::kExtension, 4},  // c7 c8 c9
      {Kind::kFloat, 4},     {Kind::kFloat, 8},                             // ca cb
      {Kind::kUnsigned, 1},  {Kind::kUnsigned, 2},                          // cc cd
      {Kind::kUnsigned, 4},  {Kind::kUnsigned, 8},                          // ce cf
      {Kind::kNegative, 1},  {Kind::kNegative, 2},                          // d0 d1
      {Kind::kNegative, 4},  {Kind::kNegative, 8},                          // d2 d3
      {Kind::kNil, 0},       {Kind::kNil, 0},       {Kind::kNil, 0},        // d4 d5 d6: fixext
      {Kind::kNil, 0},       {Kind::kNil, 0},                               // d7 d8
      {Kind::kString, 1},    {Kind::kString, 2},    {Kind::kString, 4},     // d9 da db
      {Kind::kArray, 2},     {Kind::kArray, 4},                             // dc dd
      {Kind::kMap, 2},       {Kind::kMap, 4},                               // de df
  });
  if (first < 0xc4 || first > 0xdf) return {};
  return kTable[first - 0xc4U];
}

// A non-negative number in a signed format is an unsigned one to us.
Kind integer_kind(uint64_t value) {
  return static_cast<int64_t>(value) < 0 ? Kind::kNegative : Kind::kUnsigned;
}

double real_of(uint64_t bits, size_t bytes) {
  if (bytes == 4) return std::bit_cast<float>(static_cast<uint32_t>(bits));
  return std::bit_cast<double>(bits);
}

}  // namespace

Result<Head> read_head(std::string_view bytes) {
  if (bytes.empty()) return broken("a message ends inside a value");
  const auto first = static_cast<uint8_t>(bytes[0]);
  if (const std::optional<Head> head = single_byte_head(first)) return *head;
  if (first >= 0xd4 && first <= 0xd8) {
    return Head{Kind::kExtension, 2, uint64_t{1} << (first - 0xd4U), 0};
  }
  const Format format = format_of(first);
  if (format.number_bytes == 0) return broken("a message holds a byte that is not msgpack");
  if (bytes.size() < 1 + format.number_bytes) return broken("a message ends inside a value");
  Head head{format.kind, 1 + format.number_bytes, big_endian(bytes, 1, format.number_bytes), 0};
  if (format.kind == Kind::kExtension) head.head_bytes += 1;  // its type
  if (format.kind == Kind::kFloat) head.real = real_of(head.count, format.number_bytes);
  if (format.kind == Kind::kNegative) {
    head.count = sign_extended(head.count, format.number_bytes);
    head.kind = integer_kind(head.count);
  }
  return head;
}

namespace {

// Walks whole values. `pending` values must still come in all, so that more of them than bytes left
// is found before anything is done for them.
class Walker {
 public:
  explicit Walker(std::string_view bytes) : rest_(bytes), whole_(bytes.size()) {}

  // Walks one value; the bytes that it took.
  Result<size_t> walk() {
    AIRLLM_TRY_VOID(value());
    while (depth_ > 0) {
      if (open_[depth_ - 1] == 0) {
        --depth_;
        continue;
      }
      --open_[depth_ - 1];
      --pending_;
      AIRLLM_TRY_VOID(value());
    }
    return whole_ - rest_.size();
  }

 private:
  Status value() {
    AIRLLM_TRY(const Head head, read_head(rest_));
    if (rest_.size() < head.head_bytes) return broken("a message ends inside a value");
    rest_.remove_prefix(head.head_bytes);
    if (is_sized(head.kind)) {
      if (head.count > rest_.size()) return broken("a message ends inside a string");
      rest_.remove_prefix(head.count);
    }
    if (head.kind == Kind::kArray || head.kind == Kind::kMap) return enter(head);
    return {};
  }

  Status enter(const Head& head) {
    if (depth_ == open_.size()) {
      return broken("a message is nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    // At most 2^32 pairs, so that the sum cannot overflow.
    const uint64_t values = head.kind == Kind::kMap ? 2 * head.count : head.count;
    if (pending_ + values > rest_.size()) {
      return broken("a message announces more elements than it has bytes");
    }
    pending_ += values;
    open_[depth_++] = values;
    return {};
  }

  std::string_view rest_;
  size_t whole_;
  uint64_t pending_ = 0;
  size_t depth_ = 0;
  std::array<uint64_t, kMaxDepth> open_{};
};

}  // namespace

Result<size_t> value_bytes(std::string_view bytes) { return Walker(bytes).walk(); }

Status check_payload(std::string_view payload) {
  AIRLLM_TRY(const Head head, read_head(payload));
  if (head.kind != Kind::kMap) return broken("a message is not a msgpack map");
  AIRLLM_TRY(const size_t bytes, value_bytes(payload));
  if (bytes != payload.size()) {
    return broken("a message has " + std::to_string(payload.size() - bytes) +
                  " bytes after its end");
  }
  return {};
}

Result<MapView> MapView::parse(std::string_view bytes, std::string where) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  if (head.kind != Kind::kMap) return wrong_type(where, "a map");
  if (head.count > kMaxKeys) return broken(where + ": too many keys");
  MapView view;
  view.where_ = std::move(where);
  bytes.remove_prefix(head.head_bytes);
  for (uint64_t i = 0; i < head.count; ++i) {
    AIRLLM_TRY(const Head key_head, read_head(bytes));
    if (key_head.kind != Kind::kString || key_head.count > bytes.size() - key_head.head_bytes) {
      return broken(view.where_ + ": a key is not a string");
    }
    const std::string_view key = bytes.substr(key_head.head_bytes, key_head.count);
    bytes.remove_prefix(key_head.head_bytes + key_head.count);
    AIRLLM_TRY(const size_t size, value_bytes(bytes));
    for (const auto& [seen, ignored] : view.fields_) {
      if (seen == key) return broken(view.path(escape_for_display(key, true)) + " comes twice");
    }
    view.fields_.emplace_back(key, bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return view;
}

std::optional<std::string_view> MapView::find(std::string_view key) const {
  constexpr char kNil = '\xc0';
  for (const auto& [name, bytes] : fields_) {
    if (name != key) continue;
    if (bytes.front() == kNil) return std::nullopt;
    return bytes;
  }
  return std::nullopt;
}

Result<ArrayCursor> ArrayCursor::open(std::string_view bytes, const std::string& where,
                                      uint64_t max_count) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  if (head.kind != Kind::kArray) return wrong_type(where, "an array");
  if (head.count > max_count) {
    return broken(where + ": " + std::to_string(head.count) + " elements, more than " +
                  std::to_string(max_count));
  }
  ArrayCursor cursor;
  cursor.rest_ = bytes.substr(head.head_bytes);
  cursor.remaining_ = head.count;
  if (cursor.remaining_ > cursor.rest_.size()) return broken(where + ": the array is cut off");
  return cursor;
}

Result<std::string_view> ArrayCursor::next() {
  AIRLLM_TRY(const size_t size, value_bytes(rest_));
  const std::string_view element = rest_.substr(0, size);
  rest_.remove_prefix(size);
  --remaining_;
  return element;
}

Status read_value(std::string_view bytes, const std::string& where, bool& out) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  if (head.kind != Kind::kBool) return wrong_type(where, "true or false");
  out = head.count != 0;
  return {};
}

Status read_value(std::string_view bytes, const std::string& where, uint64_t& out) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  if (head.kind != Kind::kUnsigned) return wrong_type(where, "a whole number of 0 or more");
  out = head.count;
  return {};
}

Status read_value(std::string_view bytes, const std::string& where, int64_t& out) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  const bool fits = head.kind == Kind::kNegative ||
                    (head.kind == Kind::kUnsigned &&
                     head.count <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (!fits) return wrong_type(where, "a whole number");
  out = static_cast<int64_t>(head.count);
  return {};
}

Status read_value(std::string_view bytes, const std::string& where, int32_t& out) {
  int64_t wide = 0;
  AIRLLM_TRY_VOID(read_value(bytes, where, wide));
  if (!std::in_range<int32_t>(wide)) return wrong_type(where, "a number of 32 bits");
  out = static_cast<int32_t>(wide);
  return {};
}

Status read_value(std::string_view bytes, const std::string& where, double& out) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  switch (head.kind) {
    case Kind::kFloat: out = head.real; return {};
    case Kind::kUnsigned: out = static_cast<double>(head.count); return {};
    case Kind::kNegative: out = static_cast<double>(static_cast<int64_t>(head.count)); return {};
    default: return wrong_type(where, "a number");
  }
}

Status read_value(std::string_view bytes, const std::string& where, std::string& out) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  if (head.kind != Kind::kString) return wrong_type(where, "a string");
  const std::string_view text = bytes.substr(head.head_bytes, head.count);
  if (text.size() != head.count) return broken(where + ": the string is cut off");
  if (const size_t bad = find_invalid_utf8(text); bad != kValidUtf8) {
    return broken(where + ": not UTF-8 at byte " + std::to_string(bad));
  }
  out.assign(text);
  return {};
}

Status read_value(std::string_view bytes, const std::string& where, Bytes& out) {
  AIRLLM_TRY(const Head head, read_head(bytes));
  if (head.kind != Kind::kBinary) return wrong_type(where, "binary content");
  const std::string_view content = bytes.substr(head.head_bytes, head.count);
  if (content.size() != head.count) return broken(where + ": the content is cut off");
  out.bytes.assign(content);
  return {};
}

}  // namespace airllm::protocol

// Reading msgpack from a peer without trusting it.
//
// check_payload() walks the bytes once: every value whole, nesting limited, element counts possible
// for the bytes that follow. After it, MapView finds the fields of a map and reads them straight
// into the message structs. No tree of objects is built: msgpack-c would take 24 bytes for each
// element, so that a 16 MiB frame could ask for 400 MB.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace airllm::protocol {

// Maps and arrays inside each other, the payload's own map included.
inline constexpr int kMaxDepth = 16;
// Keys of a map that we read; a map with more is refused.
inline constexpr uint64_t kMaxKeys = 64;

enum class Kind {
  kNil,
  kBool,
  kUnsigned,
  kNegative,
  kFloat,
  kString,
  kBinary,
  kExtension,
  kArray,
  kMap
};

// The first bytes of a value: its kind, and what they say.
struct Head {
  Kind kind = Kind::kNil;
  size_t head_bytes = 0;  // before the content
  uint64_t count = 0;     // of a string, binary or extension: content bytes; of an array or map:
                          // elements or pairs; of a bool or integer: the value (two's complement)
  double real = 0;        // of a float
};

// The head of the value at the start of `bytes`; kProtocol when it is cut off or no msgpack.
Result<Head> read_head(std::string_view bytes);

// Whether `payload` is exactly one map, whole, no deeper than kMaxDepth.
Status check_payload(std::string_view payload);

// How many bytes the value at the start of `bytes` takes.
Result<size_t> value_bytes(std::string_view bytes);

// The fields of one map. Borrows the bytes. `where` names the map in messages ("request.params").
class MapView {
 public:
  // A kProtocol error for what is no map, a key that is no string, a key that comes twice and more
  // than kMaxKeys keys.
  static Result<MapView> parse(std::string_view bytes, std::string where);

  // The value's bytes; nothing when the key is absent or its value is nil.
  std::optional<std::string_view> find(std::string_view key) const;
  std::string path(std::string_view key) const { return where_ + "." + std::string(key); }

  // Reads the field into `out`, which keeps its value when the key is absent or nil. A value of
  // another type, out of range, or a string that is not UTF-8 is a kProtocol error.
  template <typename T>
  Status get(std::string_view key, T& out) const;

  // As get(), for arrays of at most `max_count`.
  template <typename T>
  Status get_list(std::string_view key, uint64_t max_count, std::vector<T>& out) const;

 private:
  std::string where_;
  std::vector<std::pair<std::string_view, std::string_view>> fields_;
};

// Binary content of a message: text must be UTF-8, this need not.
struct Bytes {
  std::string bytes;
};

// One value into `out`; `where` names it in messages.
Status read_value(std::string_view bytes, const std::string& where, bool& out);
Status read_value(std::string_view bytes, const std::string& where, uint64_t& out);
Status read_value(std::string_view bytes, const std::string& where, int64_t& out);
Status read_value(std::string_view bytes, const std::string& where, int32_t& out);
Status read_value(std::string_view bytes, const std::string& where, double& out);
Status read_value(std::string_view bytes, const std::string& where, std::string& out);
Status read_value(std::string_view bytes, const std::string& where, Bytes& out);
template <typename T>
Status read_value(std::string_view bytes, const std::string& where, std::optional<T>& out) {
  T value{};
  AIRLLM_TRY_VOID(read_value(bytes, where, value));
  out = std::move(value);
  return {};
}

// Cuts the elements of an array one after the other.
class ArrayCursor {
 public:
  static Result<ArrayCursor> open(std::string_view bytes, const std::string& where,
                                  uint64_t max_count);
  uint64_t remaining() const { return remaining_; }
  // The next element's bytes; call only while remaining() > 0.
  Result<std::string_view> next();

 private:
  std::string_view rest_;
  uint64_t remaining_ = 0;
};

template <typename T>
Status MapView::get(std::string_view key, T& out) const {
  const std::optional<std::string_view> bytes = find(key);
  if (!bytes) return {};
  return read_value(*bytes, path(key), out);
}

template <typename T>
Status MapView::get_list(std::string_view key, uint64_t max_count, std::vector<T>& out) const {
  const std::optional<std::string_view> bytes = find(key);
  if (!bytes) return {};
  const std::string where = path(key);
  AIRLLM_TRY(ArrayCursor cursor, ArrayCursor::open(*bytes, where, max_count));
  out.clear();
  out.reserve(cursor.remaining());
  while (cursor.remaining() > 0) {
    AIRLLM_TRY(const std::string_view element, cursor.next());
    T value{};
    AIRLLM_TRY_VOID(read_value(element, where, value));
    out.push_back(std::move(value));
  }
  return {};
}

}  // namespace airllm::protocol

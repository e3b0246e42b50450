// The wire format of protocol buffers (protobuf.dev/programming-guides/encoding), read strictly
// from untrusted bytes: one message at a time, without a copy and without recursion.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm::tokenizer {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct ProtobufField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;       // of kVarint, kFixed64 and kFixed32
  std::string_view bytes;   // of kBytes; borrows from the message
  size_t offset = 0;        // in the file: of the field, for messages,
  size_t bytes_offset = 0;  // and of `bytes`
};

class ProtobufReader {
 public:
  // `bytes` are one message, which begins at `offset` of the file `what`. Borrows both.
  ProtobufReader(std::string_view bytes, size_t offset, std::string_view what)
      : bytes_(bytes), offset_(offset), what_(what) {}

  // The next field, or nothing at the end. Groups, field numbers out of range, numbers of more than
  // 64 bits and whatever goes beyond the end of the message are kData errors with the offset.
  Result<std::optional<ProtobufField>> next();

  // What `field` holds when it has that wire type, else a kData error that names it as `name`.
  Result<std::string_view> bytes_of(const ProtobufField& field, std::string_view name) const;
  Result<std::string_view> text_of(const ProtobufField& field, std::string_view name) const;
  Result<float> float_of(const ProtobufField& field, std::string_view name) const;
  Result<uint64_t> number_of(const ProtobufField& field, std::string_view name) const;
  Result<bool> boolean_of(const ProtobufField& field, std::string_view name) const;

  Unexpected wrong(const ProtobufField& field, const std::string& why) const;

 private:
  Result<uint64_t> varint();
  Result<uint64_t> fixed(size_t count);
  Status expect(const ProtobufField& field, WireType type, std::string_view name) const;
  Unexpected broken(const std::string& why) const;

  std::string_view bytes_;
  size_t offset_;
  std::string_view what_;
  size_t at_ = 0;
};

}  // namespace airllm::tokenizer

#include "engine/tokenizer/protobuf_reader.h"

#include <bit>

#include "base/little_endian.h"
#include "base/utf8.h"

namespace airllm::tokenizer {
namespace {

constexpr const char* kRemedy = "get the file again; it is damaged or of another format";
constexpr uint64_t kMaxFieldNumber = (uint64_t{1} << 29) - 1;

const char* name_of(WireType type) {
  switch (type) {
    case WireType::kVarint: return "a number";
    case WireType::kFixed64: return "a number of 64 bits";
    case WireType::kBytes: return "bytes";
    case WireType::kFixed32: return "a number of 32 bits";
  }
  return "";
}

}  // namespace

Unexpected ProtobufReader::broken(const std::string& why) const {
  return Unexpected(ErrorCode::kData,
                    std::string(what_) + ": at byte " + std::to_string(offset_ + at_) + ": " + why,
                    kRemedy);
}

Unexpected ProtobufReader::wrong(const ProtobufField& field, const std::string& why) const {
  return Unexpected(ErrorCode::kData,
                    std::string(what_) + ": at byte " + std::to_string(field.offset) + ": " + why,
                    kRemedy);
}

Result<uint64_t> ProtobufReader::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (at_ == bytes_.size()) return broken("the message ends inside a number");
    const auto byte = static_cast<unsigned char>(bytes_[at_++]);
    // The tenth byte has room for one bit.
    if (shift == 63 && byte > 1) return broken("a number has more than 64 bits");
    value |= static_cast<uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) return value;
  }
  return broken("a number has more than 64 bits");
}

Result<uint64_t> ProtobufReader::fixed(size_t count) {
  if (bytes_.size() - at_ < count) return broken("the message ends inside a number");
  const uint64_t value = from_little_endian(bytes_.substr(at_, count));
  at_ += count;
  return value;
}

Result<std::optional<ProtobufField>> ProtobufReader::next() {
  if (at_ == bytes_.size()) return std::optional<ProtobufField>();
  ProtobufField field;
  field.offset = offset_ + at_;
  AIRLLM_TRY(const uint64_t key, varint());
  const uint64_t number = key >> 3U;
  if (number == 0 || number > kMaxFieldNumber) return wrong(field, "no field has this number");
  field.number = static_cast<uint32_t>(number);
  switch (key & 7U) {
    case 0: {
      field.type = WireType::kVarint;
      AIRLLM_TRY(field.value, varint());
      break;
    }
    case 1: {
      field.type = WireType::kFixed64;
      AIRLLM_TRY(field.value, fixed(8));
      break;
    }
    case 2: {
      field.type = WireType::kBytes;
      AIRLLM_TRY(const uint64_t length, varint());
      if (length > bytes_.size() - at_) {
        return wrong(field, "field " + std::to_string(number) + " has " + std::to_string(length) +
                                " bytes, but " + std::to_string(bytes_.size() - at_) +
                                " are left of the message");
      }
      field.bytes_offset = offset_ + at_;
      field.bytes = bytes_.substr(at_, length);
      at_ += length;
      break;
    }
    case 5: {
      field.type = WireType::kFixed32;
      AIRLLM_TRY(field.value, fixed(4));
      break;
    }
    case 3:
    case 4: return wrong(field, "groups are not supported");
    default: return wrong(field, "no field has this wire type");
  }
  return std::optional<ProtobufField>(field);
}

Status ProtobufReader::expect(const ProtobufField& field, WireType type,
                              std::string_view name) const {
  if (field.type == type) return {};
  return wrong(field,
               std::string(name) + " is " + name_of(field.type) + " instead of " + name_of(type));
}

Result<std::string_view> ProtobufReader::bytes_of(const ProtobufField& field,
                                                  std::string_view name) const {
  AIRLLM_TRY_VOID(expect(field, WireType::kBytes, name));
  return field.bytes;
}

Result<std::string_view> ProtobufReader::text_of(const ProtobufField& field,
                                                 std::string_view name) const {
  AIRLLM_TRY_VOID(expect(field, WireType::kBytes, name));
  if (find_invalid_utf8(field.bytes) != kValidUtf8) {
    return wrong(field, std::string(name) + " is not UTF-8: '" +
                            escape_for_display(field.bytes.substr(0, 80), true) + "'");
  }
  return field.bytes;
}

Result<float> ProtobufReader::float_of(const ProtobufField& field, std::string_view name) const {
  AIRLLM_TRY_VOID(expect(field, WireType::kFixed32, name));
  return std::bit_cast<float>(static_cast<uint32_t>(field.value));
}

Result<uint64_t> ProtobufReader::number_of(const ProtobufField& field,
                                           std::string_view name) const {
  AIRLLM_TRY_VOID(expect(field, WireType::kVarint, name));
  return field.value;
}

Result<bool> ProtobufReader::boolean_of(const ProtobufField& field, std::string_view name) const {
  AIRLLM_TRY_VOID(expect(field, WireType::kVarint, name));
  return field.value != 0;
}

}  // namespace airllm::tokenizer

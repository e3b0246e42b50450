// Writes messages of a tokenizer.model: fields of the wire format of protocol buffers.
#pragma once

#include <bit>
#include <cstdint>
#include <string>

namespace airllm::tokenizer {

inline std::string varint(uint64_t number) {
  std::string out;
  for (; number >= 0x80; number >>= 7U) out += static_cast<char>((number & 0x7FU) | 0x80U);
  return out + static_cast<char>(number);
}

inline std::string bytes_field(unsigned number, const std::string& bytes) {
  return varint(number << 3U | 2U) + varint(bytes.size()) + bytes;
}

inline std::string number_field(unsigned number, uint64_t value) {
  return varint(number << 3U) + varint(value);
}

inline std::string float_field(unsigned number, float value) {
  std::string out = varint(number << 3U | 5U);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (unsigned shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift & 0xFFU);
  return out;
}

// A "pieces" of ModelProto; the types are those of its SentencePiece.Type.
inline std::string piece_field(const std::string& text, float score, unsigned type = 1) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) + number_field(3, type));
}

}  // namespace airllm::tokenizer

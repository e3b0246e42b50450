#include "tests/engine/tokenizer/sentencepiece_fixtures.h"

#include <gtest/gtest.h>

#include <bit>

#include "tests/engine/tokenizer/fixtures.h"

namespace airllm::tokenizer {
namespace {

std::string varint(uint64_t number) {
  std::string out;
  for (; number >= 0x80; number >>= 7U) out += static_cast<char>((number & 0x7FU) | 0x80U);
  return out + static_cast<char>(number);
}

}  // namespace

std::string sentencepiece_fixture(const std::string& name) {
  const auto bytes = read_text(
      std::string(AIRLLM_SOURCE_DIR "/tests/engine/tokenizer/fixtures/sentencepiece/") + name);
  EXPECT_TRUE(bytes.has_value()) << name;
  return bytes.value_or("");
}

std::string bytes_field(unsigned number, const std::string& bytes) {
  return varint(number << 3U | 2U) + varint(bytes.size()) + bytes;
}

std::string number_field(unsigned number, uint64_t value) {
  return varint(number << 3U) + varint(value);
}

std::string float_field(unsigned number, float value) {
  std::string out = varint(number << 3U | 5U);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (unsigned shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift & 0xFFU);
  return out;
}

std::string piece_field(const std::string& text, float score, unsigned type) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) + number_field(3, type));
}

std::string sentencepiece_variant(const Json& variant) {
  std::string bytes = sentencepiece_fixture(variant["base"].get<std::string>() + ".model");
  if (variant["nmt_nfkc"].get<bool>()) {
    bytes += bytes_field(3, bytes_field(2, sentencepiece_fixture("nmt_nfkc.charsmap")));
  }
  for (const Json& byte : variant["behind"]) bytes += static_cast<char>(byte.get<unsigned char>());
  return bytes;
}

}  // namespace airllm::tokenizer

#include "engine/tokenizer/byte_level.h"

#include <array>

#include "base/utf8.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kCharacters = 0x144;  // the largest is U+0143

bool is_printable(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<std::string, 256> characters;
  std::array<int16_t, kCharacters> bytes{};

  Tables() {
    bytes.fill(-1);
    char32_t next = 0x100;  // bytes that are not printable get the characters from here
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char32_t c = is_printable(byte) ? char32_t{byte} : next++;
      append_utf8(characters[byte], c);
      bytes[c] = static_cast<int16_t>(byte);
    }
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

}  // namespace

void append_as_byte_level(std::string& out, std::string_view text) {
  const Tables& t = tables();
  for (const char c : text) out += t.characters[static_cast<unsigned char>(c)];
}

std::optional<uint8_t> byte_of_character(char32_t c) {
  if (c >= kCharacters) return std::nullopt;
  const int16_t byte = tables().bytes[c];
  if (byte < 0) return std::nullopt;
  return static_cast<uint8_t>(byte);
}

}  // namespace airllm::tokenizer

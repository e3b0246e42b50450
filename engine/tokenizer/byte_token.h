// Tokens that stand for one byte: "<0x00>" to "<0xFF>".
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace airllm::tokenizer {

inline std::string byte_token(unsigned byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4U & 15U] + kDigits[byte & 15U] + '>';
}

// The byte, of a text that is written exactly so. (The decoder ByteFallback takes other spellings,
// too.)
inline std::optional<unsigned> byte_of_token(std::string_view token) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const size_t high = kDigits.find(token[3]);
  const size_t low = kDigits.find(token[4]);
  if (high >= 16 || low >= 16) return std::nullopt;
  return static_cast<unsigned>(high * 16 + low);
}

}  // namespace airllm::tokenizer

// The alphabet of byte-level BPE (GPT-2): each byte is written as one printable character, so that
// tokens are valid text whatever bytes they hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace airllm::tokenizer {

// Appends the characters of all bytes of `text`.
void append_as_byte_level(std::string& out, std::string_view text);

// The byte that the character stands for.
std::optional<uint8_t> byte_of_character(char32_t c);

}  // namespace airllm::tokenizer

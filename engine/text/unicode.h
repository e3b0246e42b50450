// Code points: walking valid UTF-8, and the character classes that tokenizers ask for.
#pragma once

#include <cstddef>
#include <string_view>

namespace airllm::text {

// The code point at `at`, which moves behind it. `text` is valid UTF-8 and at < text.size().
char32_t next_code_point(std::string_view text, size_t& at);

// The code point that ends at `end`, which moves to its first byte. end > 0.
char32_t previous_code_point(std::string_view text, size_t& end);

// Of Unicode 16, as the reference's.
bool is_word(char32_t c);   // \w of UTS 18, as Rust has it (Oniguruma's also takes No)
bool is_space(char32_t c);  // the property White_Space

}  // namespace airllm::text

// Base64 (RFC 4648, section 4), as tokenizers' files hold bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace airllm::tokenizer {

// The bytes, or nothing where the text is not canonical: padded, and without bits beyond the last
// byte.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace airllm::tokenizer

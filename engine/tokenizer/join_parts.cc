#include "engine/tokenizer/join_parts.h"

#include "base/utf8.h"

namespace airllm::tokenizer {
namespace {

// Positions are 32 bits wide, and a byte can become three or more in normalisation.
constexpr size_t kMaxTextBytes = size_t{256} << 20;

}  // namespace

Result<text::MarkedText> join_parts(std::span<const TextPart> parts) {
  text::MarkedText text;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (const size_t bad = find_invalid_utf8(parts[i].text); bad != kValidUtf8) {
      return Unexpected(ErrorCode::kData,
                        "the text is not UTF-8 at byte " + std::to_string(text.size() + bad));
    }
    if (parts[i].text.size() > kMaxTextBytes - text.size()) {
      return Unexpected(ErrorCode::kData, "the text is longer than 256 MiB", "give a shorter text");
    }
    text.append(parts[i].text, parts[i].from_user ? text::kUserOrigin : static_cast<int32_t>(i));
  }
  return text;
}

}  // namespace airllm::tokenizer

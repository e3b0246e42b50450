#include "engine/tokenizer/normalizer_precompiled.h"

#include <string>
#include <utility>

#include "engine/text/graphemes.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/charsmap.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxClusterBytes = 5;
constexpr size_t kMaxNormalizedBytes = size_t{1} << 30;

class Precompiled : public Normalizer {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}

  Result<text::MarkedText> apply(text::MarkedText text) const override {
    const std::string_view bytes(text.text());
    text::MarkedText result;
    for (size_t at = 0; at < bytes.size();) {
      const size_t end = text::grapheme_end(bytes, at);
      append_cluster(text, at, end, result);
      if (result.size() > kMaxNormalizedBytes) {
        return Unexpected(ErrorCode::kData, "the normalised text is longer than 1 GiB",
                          "give a shorter text");
      }
      at = end;
    }
    return result;
  }

 private:
  void append_cluster(const text::MarkedText& text, size_t begin, size_t end,
                      text::MarkedText& result) const {
    const std::string_view bytes(text.text());
    if (end - begin <= kMaxClusterBytes) {
      if (const auto match = map_.shortest(bytes.substr(begin, end - begin))) {
        result.append(match->text, text.origin_of(begin, end));
        return;
      }
    }
    while (begin < end) {
      size_t behind = begin;
      text::next_code_point(bytes, behind);
      const std::string_view character = bytes.substr(begin, behind - begin);
      const auto match = map_.shortest(character);
      result.append(match ? match->text : character, text.origin_at(begin));
      begin = behind;
    }
  }

  Charsmap map_;
};

// Strict base64 (RFC 4648, section 4), or nothing.
std::optional<std::string> decode_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6U | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFFU);
  }
  // Bits that the padding leaves over are zero.
  if ((bits & ((1U << count) - 1)) != 0) return std::nullopt;
  return out;
}

}  // namespace

Result<std::unique_ptr<Normalizer>> precompiled_normalizer(const Fields& fields) {
  AIRLLM_TRY(const std::string text, fields.string("precompiled_charsmap"));
  const std::optional<std::string> bytes = decode_base64(text);
  if (!bytes) return fields.wrong("precompiled_charsmap", "base64");
  AIRLLM_TRY(Charsmap map, Charsmap::from_bytes(*bytes, fields.where() + ": precompiled_charsmap"));
  return std::unique_ptr<Normalizer>(new Precompiled(std::move(map)));
}

}  // namespace airllm::tokenizer

#include "base/check.h"
#include "base/utf8.h"
#include "engine/tokenizer/charsmap.h"
#include "engine/tokenizer/load_tokenizer.h"
#include "tests/engine/tokenizer/sentencepiece_writer.h"
#include "tests/fuzz/targets.h"

namespace airllm::fuzz {
namespace {

using tokenizer::bytes_field;
using tokenizer::number_field;
using tokenizer::piece_field;

// ---- tokenizer.model ---------------------------------------------------------------------------

std::string streamed(const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  const auto stream = tokenizer.stream(true);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = stream->push(id);
    AIRLLM_CHECK(find_invalid_utf8(piece) == kValidUtf8);
    text += piece;
  }
  return text + stream->finish();
}

// A tokenizer that is accepted encodes any text to ids that it has, and decodes token by token to
// the same text as all at once.
bool run_sentencepiece_model(std::string_view input) {
  const auto loaded = tokenizer::load_tokenizer({.tokenizer_model = std::string(input)}, "t");
  if (!loaded) {
    AIRLLM_CHECK(loaded.error().code == ErrorCode::kData);
    AIRLLM_CHECK(loaded.error().message.starts_with("t/tokenizer.model"));
    return false;
  }
  const tokenizer::Tokenizer& tokenizer = **loaded;
  const std::vector<tokenizer::TextPart> parts = {{"<s>ab  12 ", false},
                                                  {"don't\nÄé 東🗼<s>aabab abba", true}};
  if (const auto ids = tokenizer.encode(parts, {})) {
    for (const int32_t id : *ids) AIRLLM_CHECK(tokenizer.token_text(id).has_value());
    AIRLLM_CHECK(streamed(tokenizer, *ids) == tokenizer.decode(*ids, true));
  }
  const std::vector<int32_t> any = {0, 1, 2, -1, 3, 2147483647, 1, 4, 5, 6, 0};
  AIRLLM_CHECK(streamed(tokenizer, any) == tokenizer.decode(any, true));
  return true;
}

// A map of one rule: "a" becomes `text`.
std::string charsmap_of(const std::string& text) {
  std::string out;
  const auto add = [&](uint32_t number) {
    for (unsigned shift = 0; shift < 32; shift += 8) out += static_cast<char>(number >> shift);
  };
  add(1024 * 4);
  for (uint32_t unit = 0; unit < 1024; ++unit) {
    add(unit == 0                 ? 0x100U << 10
        : unit == 0x161           ? (0x200U << 10) | 0x100 | 'a'
        : unit == (0x161 ^ 0x200) ? 0x80000000U
                                  : 1);
  }
  return out + text + '\0';
}

Target sentencepiece_model() {
  constexpr unsigned kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;
  const std::string text = piece_field("<unk>", 0, kUnknown) + piece_field("<s>", 0, kControl) +
                           piece_field("a", -2) + piece_field("b", -3) + piece_field("ab", -1) +
                           piece_field("aba", -1, kUnused) + piece_field("\u2581", -4) +
                           piece_field("<x>", 0, kUserDefined);
  std::string bytes = text + bytes_field(2, number_field(3, 2) + number_field(35, 1)) +
                      bytes_field(3, number_field(3, 1) + number_field(4, 0));
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (unsigned byte = 0; byte < 256; ++byte) {
    bytes +=
        piece_field(std::string("<0x") + kDigits[byte >> 4U] + kDigits[byte & 15U] + '>', 0, kByte);
  }
  const std::string unigram = text + bytes_field(2, number_field(3, 1) + number_field(24, 1)) +
                              bytes_field(3, bytes_field(2, charsmap_of("bb")));
  return {"sentencepiece_model", run_sentencepiece_model, {text, bytes, unigram}};
}

// ---- precompiled_charsmap ----------------------------------------------------------------------

// A map that is accepted finds prefixes and replaces them by UTF-8, whatever the text.
bool run_charsmap(std::string_view input) {
  const auto map = tokenizer::Charsmap::from_bytes(input, "f");
  if (!map) {
    AIRLLM_CHECK(map.error().code == ErrorCode::kData);
    return false;
  }
  std::string text = "aab Äé東🗼";
  for (int byte = 0; byte < 256; ++byte) text += static_cast<char>(byte);
  // Bytes of the map itself reach further into it.
  text += input.substr(0, 64);
  for (size_t at = 0; at < text.size(); ++at) {
    const std::string_view rest = std::string_view(text).substr(at);
    const auto longest = map->longest(rest);
    const auto shortest = map->shortest(rest);
    for (const auto& match : {longest, shortest}) {
      if (!match) continue;
      AIRLLM_CHECK(match->length > 0 && match->length <= rest.size());
      AIRLLM_CHECK(find_invalid_utf8(match->text) == kValidUtf8);
    }
    AIRLLM_CHECK(!longest || !shortest || longest->length >= shortest->length);
  }
  return true;
}

Target charsmap() { return {"charsmap", run_charsmap, {charsmap_of("x"), charsmap_of("")}}; }

}  // namespace

std::vector<Target> sentencepiece_targets() { return {sentencepiece_model(), charsmap()}; }

}  // namespace airllm::fuzz

#include "engine/tokenizer/sentencepiece_decoder.h"

#include "base/utf8.h"
#include "engine/tokenizer/byte_token.h"

namespace airllm::tokenizer {
namespace {

constexpr std::string_view kSpace = "\u2581";
constexpr std::string_view kReplacement = "\uFFFD";

}  // namespace

std::string SentencePieceDecoder::note(std::string text) {
  has_text_ = has_text_ || !text.empty();
  return text;
}

// Characters from the begin of the bytes; a byte that begins none becomes U+FFFD. What may still
// become a character stays, unless `all` is wanted.
std::string SentencePieceDecoder::take_characters(bool all) {
  std::string out;
  while (!bytes_.empty()) {
    const size_t good = find_invalid_utf8(bytes_);
    if (good == kValidUtf8) {
      out += bytes_;
      bytes_.clear();
      break;
    }
    out.append(bytes_, 0, good);
    bytes_.erase(0, good);
    if (!all && incomplete_utf8_suffix(bytes_) == bytes_.size()) break;
    out += kReplacement;
    bytes_.erase(0, 1);
  }
  return note(std::move(out));
}

std::string SentencePieceDecoder::piece_text(int32_t id) {
  std::string_view piece = vocabulary_.text(id);
  if (at_start_ && decoding_.drops_first_space && piece.starts_with(kSpace)) {
    piece.remove_prefix(kSpace.size());
    if (!decoding_.drops_all_first_spaces) at_start_ = false;
  }
  if (vocabulary_.type(id) == PieceType::kUnknown) return decoding_.unknown_surface;
  std::string out;
  while (true) {
    const size_t space = piece.find(kSpace);
    out += piece.substr(0, space);
    if (space == std::string_view::npos) return out;
    out += ' ';
    piece.remove_prefix(space + kSpace.size());
  }
}

std::string SentencePieceDecoder::push(int32_t id) {
  if (vocabulary_.type(id) == PieceType::kByte) {
    bytes_ += static_cast<char>(*byte_of_token(vocabulary_.text(id)));
    return take_characters(false);
  }
  std::string out = take_characters(true);
  if (has_text_) at_start_ = false;
  if (vocabulary_.type(id) == PieceType::kControl) return out;
  out += note(piece_text(id));
  if (has_text_) at_start_ = false;
  return out;
}

std::string SentencePieceDecoder::push_text(std::string_view text) {
  std::string out = take_characters(true);
  out += note(std::string(text));
  if (has_text_) at_start_ = false;
  return out;
}

std::string SentencePieceDecoder::finish() { return take_characters(true); }

}  // namespace airllm::tokenizer

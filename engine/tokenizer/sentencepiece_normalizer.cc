#include "engine/tokenizer/sentencepiece_normalizer.h"

#include <utility>

#include "engine/tokenizer/normalizer.h"

namespace airllm::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";

// Appends what becomes of a text that is read from front to back, with its origins.
class Writer {
 public:
  explicit Writer(const text::MarkedText& source) : runs_(source.runs()) {}

  // Of bytes [begin, end) of the source, begin < end; not before those of the last call.
  void append(std::string_view text, size_t begin, size_t end) {
    while (runs_[run_].end <= begin) ++run_;
    result_.append(text, end <= runs_[run_].end ? runs_[run_].origin : text::kUserOrigin);
  }
  // Without the bytes from `size` on.
  text::MarkedText take(size_t size) {
    return size == result_.size() ? std::move(result_) : result_.substr(0, size);
  }
  const text::MarkedText& result() const { return result_; }

 private:
  const std::vector<text::MarkedText::Run>& runs_;
  size_t run_ = 0;
  text::MarkedText result_;
};

// The length of the character at `at`; 1 where a rule that replaces half a character has left a
// byte that begins none.
size_t character_length(std::string_view text, size_t at, bool& valid) {
  const auto lead = static_cast<unsigned char>(text[at]);
  valid = (lead & 0xC0U) != 0x80U;
  return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

}  // namespace

Result<SentencePieceNormalizer> SentencePieceNormalizer::build(const SentencePieceFile& file,
                                                               std::string_view what) {
  SentencePieceNormalizer out;
  if (!file.charsmap.empty()) {
    AIRLLM_TRY(out.charsmap_,
               Charsmap::from_bytes(file.charsmap, std::string(what) + ": precompiled_charsmap"));
  }
  out.space_ = file.escape_whitespaces ? "\u2581" : " ";
  out.add_dummy_prefix_ = file.add_dummy_prefix;
  out.remove_extra_whitespaces_ = file.remove_extra_whitespaces;
  out.whitespace_as_suffix_ = file.treat_whitespace_as_suffix;
  return out;
}

SentencePieceNormalizer::Prefix SentencePieceNormalizer::prefix(
    const text::MarkedText& text, size_t at, const SentencePieceVocabulary& vocabulary) const {
  const std::string_view rest = std::string_view(text.text()).substr(at);
  if (const size_t length = vocabulary.user_defined_at(text, at); length > 0) {
    return {length, rest.substr(0, length)};
  }
  if (charsmap_) {
    if (const auto match = charsmap_->longest(rest)) return {match->length, match->text};
  }
  bool valid = false;
  const size_t length = character_length(rest, 0, valid);
  return {length, valid ? rest.substr(0, length) : kReplacement};
}

Result<text::MarkedText> SentencePieceNormalizer::apply(
    const text::MarkedText& text, bool dummy_prefix,
    const SentencePieceVocabulary& vocabulary) const {
  size_t at = 0;
  while (remove_extra_whitespaces_ && at < text.size()) {
    const Prefix next = prefix(text, at, vocabulary);
    if (next.text != " ") break;
    at += next.length;
  }
  if (at == text.size()) return text::MarkedText();

  Writer writer(text);
  const bool add_space = add_dummy_prefix_ && dummy_prefix;
  if (add_space && !whitespace_as_suffix_) writer.append(space_, at, at + 1);
  bool behind_space = remove_extra_whitespaces_;
  while (at < text.size()) {
    const Prefix next = prefix(text, at, vocabulary);
    std::string_view piece = next.text;
    while (behind_space && piece.starts_with(' ')) piece.remove_prefix(1);
    if (!piece.empty()) behind_space = remove_extra_whitespaces_ && piece.ends_with(' ');
    while (!piece.empty()) {
      const size_t plain = std::min(piece.find(' '), piece.size());
      writer.append(piece.substr(0, plain), at, at + next.length);
      if (plain < piece.size()) writer.append(space_, at, at + next.length);
      piece.remove_prefix(std::min(plain + 1, piece.size()));
    }
    AIRLLM_TRY_VOID(check_normalized_size(writer.result().size()));
    at += next.length;
  }
  size_t size = writer.result().size();
  while (remove_extra_whitespaces_ &&
         std::string_view(writer.result().text()).substr(0, size).ends_with(space_)) {
    size -= space_.size();
  }
  const size_t last = text.size() - 1;
  if (!add_space || !whitespace_as_suffix_) return writer.take(size);
  text::MarkedText result = writer.take(size);
  result.append(space_, text.origin_at(last));
  return result;
}

}  // namespace airllm::tokenizer

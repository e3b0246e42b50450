// From the pieces of a tokenizer.model back to text, one by one, as the original's Decode().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/tokenizer/sentencepiece_file.h"
#include "engine/tokenizer/sentencepiece_vocabulary.h"

namespace airllm::tokenizer {

// Immutable; safe to share between threads.
struct SentencePieceDecoding {
  std::string unknown_surface;
  bool drops_first_space = false;       // the one that add_dummy_prefix put there
  bool drops_all_first_spaces = false;  // with remove_extra_whitespaces
};

// One decoding. Borrows; not thread-safe.
class SentencePieceDecoder {
 public:
  SentencePieceDecoder(const SentencePieceVocabulary& vocabulary,
                       const SentencePieceDecoding& decoding)
      : vocabulary_(vocabulary), decoding_(decoding) {}

  // Of a piece that is contained: the text that is certain behind it, whole UTF-8 characters. A
  // control piece has none.
  std::string push(int32_t id);
  // Of a token that stands for itself.
  std::string push_text(std::string_view text);
  std::string finish();

 private:
  std::string take_characters(bool all);
  std::string piece_text(int32_t id);
  std::string note(std::string text);

  const SentencePieceVocabulary& vocabulary_;
  const SentencePieceDecoding& decoding_;
  std::string bytes_;      // of byte pieces: what may still become a character
  bool at_start_ = true;   // a space may still be the first one
  bool has_text_ = false;  // something was returned
};

}  // namespace airllm::tokenizer

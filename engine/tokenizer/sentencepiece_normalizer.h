// What a tokenizer.model does to a text before it looks for pieces, as the original's
// normalizer.cc.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "engine/text/marked_text.h"
#include "engine/tokenizer/charsmap.h"
#include "engine/tokenizer/sentencepiece_file.h"
#include "engine/tokenizer/sentencepiece_vocabulary.h"

namespace airllm::tokenizer {

// Immutable after construction; safe to share between threads.
class SentencePieceNormalizer {
 public:
  // A broken map of characters is a kData error. `what` names the file.
  static Result<SentencePieceNormalizer> build(const SentencePieceFile& file,
                                               std::string_view what);

  // User-defined pieces of `vocabulary` stay as they are. The space that add_dummy_prefix puts
  // before (or behind) a text is added with `dummy_prefix`. New text stems from what it replaces,
  // and from text::kUserOrigin where that was mixed. A result of over 1 GiB is a kData error.
  Result<text::MarkedText> apply(const text::MarkedText& text, bool dummy_prefix,
                                 const SentencePieceVocabulary& vocabulary) const;

 private:
  struct Prefix {
    size_t length;
    std::string_view text;  // what it becomes
  };
  SentencePieceNormalizer() = default;
  Prefix prefix(const text::MarkedText& text, size_t at,
                const SentencePieceVocabulary& vocabulary) const;

  std::optional<Charsmap> charsmap_;
  std::string space_;  // what a space becomes
  bool add_dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
  bool whitespace_as_suffix_ = false;
};

}  // namespace airllm::tokenizer

// How a tokenizer.model cuts a normalised text into pieces: by merges (BPE, arXiv 1508.07909) or by
// the most likely way (Unigram, arXiv 1804.10959), each to the last tie as the original does it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/text/marked_text.h"
#include "engine/tokenizer/sentencepiece_vocabulary.h"

namespace airllm::tokenizer {

// Immutable after construction; safe to share between threads.
class SentencePieceModel {
 public:
  virtual ~SentencePieceModel() = default;
  // Appends the ids of the text, which is at most 1 GiB of valid UTF-8.
  virtual void encode(const text::MarkedText& text, std::vector<int32_t>& ids) const = 0;
};

// Both borrow the vocabulary.
std::unique_ptr<SentencePieceModel> make_sentencepiece_bpe(
    const SentencePieceVocabulary& vocabulary);
std::unique_ptr<SentencePieceModel> make_sentencepiece_unigram(
    const SentencePieceVocabulary& vocabulary);

}  // namespace airllm::tokenizer

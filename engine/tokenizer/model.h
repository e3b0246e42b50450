// The "model" of tokenizer.json: turns the words of a text into ids.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

struct TokenizerFile;

// Immutable after construction; safe to share between threads.
class Model {
 public:
  // The working memory of one encoding. Borrows the model; not thread-safe.
  class Encoder {
   public:
    virtual ~Encoder() = default;
    // Appends the ids of all words. A word that needs an unknown token which the vocabulary lacks
    // is a kData error.
    virtual Status encode(const Words& words, std::vector<int32_t>& ids) = 0;
  };

  // BPE, Unigram, WordPiece and WordLevel; another type is a kData error that names it. Takes
  // vocabulary and merges out of `file`, whose name is `what`.
  static Result<std::unique_ptr<Model>> from_file(TokenizerFile& file, std::string_view what);
  // Bpe::from_ranks.
  static Result<std::unique_ptr<Model>> from_ranks(Vocabulary vocabulary, std::string_view what);
  virtual ~Model() = default;

  virtual std::unique_ptr<Encoder> encoder() const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

Unexpected missing_unknown_token();

}  // namespace airllm::tokenizer

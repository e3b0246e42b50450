// tokenizer.json, read in one pass: the two large members of the model, "vocab" and "merges", go
// straight into compact tables and never become JSON values (a vocabulary of 128 thousand tokens
// would take tens of megabytes as such).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

// Pairs of token texts, in order of rank.
class MergeList {
 public:
  struct Pair {
    std::string_view left, right;
  };
  // False when the texts take more than 4 GiB.
  bool add(std::string_view left, std::string_view right);
  size_t size() const { return ends_.size() / 2; }
  Pair operator[](size_t rank) const;  // borrows from the list

 private:
  std::string arena_;
  std::vector<uint32_t> ends_;  // for each pair: end of left, end of right
};

// NOLINTNEXTLINE(bugprone-exception-escape): the library's move assignment asserts, not throws.
struct TokenizerFile {
  Json settings;  // all but model.vocab (an object, or a list of pieces with scores) and
                  // model.merges
  bool has_vocabulary = false;
  Vocabulary vocabulary;
  MergeList merges;
  bool has_scores = false;     // model.vocab is a list of [piece, score]
  std::vector<double> scores;  // by id
};

// As strict as base/json.h; `what` names the file in messages.
Result<TokenizerFile> read_tokenizer_file(std::string_view text, std::string_view what);

}  // namespace airllm::tokenizer

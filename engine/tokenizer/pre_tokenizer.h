// The "pre_tokenizer" of tokenizer.json: cuts normalised text into the words that the model encodes
// one by one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace airllm::tokenizer {

// Words as ranges of one text.
struct Words {
  struct Word {
    uint32_t begin, end;
    bool at_start;  // whether it begins where the whole input begins
  };
  std::string text;  // below 4 GiB
  std::vector<Word> words;

  std::string_view view(const Word& word) const {
    return std::string_view(text).substr(word.begin, word.end - word.begin);
  }
};

// Immutable; safe to share between threads.
class PreTokenizer {
 public:
  // Split, Digits, ByteLevel, Metaspace, Whitespace, WhitespaceSplit, Punctuation,
  // BertPreTokenizer, UnicodeScripts, CharDelimiterSplit, FixedLength and Sequence; another type is
  // a kData error that names it. `where` names the component.
  static Result<std::unique_ptr<PreTokenizer>> from_json(const Json& json,
                                                         const std::string& where);
  virtual ~PreTokenizer() = default;

  // Cuts or rewrites each word. The text may grow threefold plus a few bytes per word.
  virtual Status apply(Words& words) const = 0;
};

}  // namespace airllm::tokenizer

// The "added_tokens" of tokenizer.json: texts such as <|begin|> that are one token wherever they
// stand, found before anything else cuts the text.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "engine/text/marked_text.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // matches only between characters that are not of a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // is searched in the normalised text, by its normalised content
  bool special = false;
  std::string text;  // what decoding makes of it: the content, normalised where it was searched so
};

// All members but id and text. `where` names the entry in messages.
Result<AddedToken> read_added_token(const Json& json, const std::string& where);

// Immutable after construction; safe to share between threads.
class AddedTokens {
 public:
  // A piece of a text: one added token, or text in which there is none.
  struct Section {
    size_t begin, end;
    int32_t id;  // -1: text
  };

  // `list` is the file's "added_tokens" (null: none). A token that is in the vocabulary has the
  // vocabulary's id. `normalizer` may be null.
  static Result<AddedTokens> from_json(const Json* list, const Vocabulary& vocabulary,
                                       const Normalizer* normalizer, std::string_view what);

  // Tokens with an id each; a content or an id that occurs twice is a kData error.
  static Result<AddedTokens> from_tokens(std::vector<AddedToken> tokens,
                                         const Normalizer* normalizer, std::string_view what);

  // Cuts a text before it is normalised, or a normalised one: at the leftmost and longest matches
  // that lie within one run of the text that is not the user's.
  std::vector<Section> cut_raw(const text::MarkedText& text) const { return cut(text, raw_); }
  std::vector<Section> cut_normalized(const text::MarkedText& text) const {
    return cut(text, normalized_);
  }
  bool has_normalized() const { return !normalized_.patterns.empty(); }

  // By content and by id; null when there is none.
  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int32_t id) const;
  int32_t largest_id() const { return largest_id_; }  // -1: there are none

 private:
  struct Pattern {
    std::string text;
    size_t token;  // index into tokens_
  };
  // Sorted by text, so that reading on narrows a range of it.
  struct Matcher {
    std::vector<Pattern> patterns;
    std::array<bool, 256> first_bytes{};
  };
  struct Match {
    size_t length = 0;
    size_t token = 0;
  };

  Status index(const std::string& where);
  Status build_matchers(const Normalizer* normalizer);
  static Match longest_match(const Matcher& matcher, std::string_view text);
  std::vector<Section> cut(const text::MarkedText& text, const Matcher& matcher) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, size_t> by_content_;  // keys borrow from tokens_
  std::unordered_map<int32_t, size_t> by_id_;
  Matcher raw_, normalized_;
  int32_t largest_id_ = -1;
};

}  // namespace airllm::tokenizer

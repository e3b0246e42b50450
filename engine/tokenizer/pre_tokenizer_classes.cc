#include "engine/tokenizer/pre_tokenizer_classes.h"

#include <functional>
#include <utility>
#include <vector>

#include "engine/text/reference_classes.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/split.h"

namespace airllm::tokenizer {
namespace {

using text::is_in;
using text::ReferenceClass;
using PreTokenizerPtr = std::unique_ptr<PreTokenizer>;
using Cut = std::function<std::vector<Range>(std::string_view word)>;

// Replaces each word by the pieces that `cut` gives.
class CutWords : public PreTokenizer {
 public:
  explicit CutWords(Cut cut) : cut_(std::move(cut)) {}
  Status apply(Words& words) const override {
    std::vector<Words::Word> pieces;
    for (const Words::Word& word : words.words) {
      for (const Range& range : cut_(words.view(word))) {
        pieces.push_back(
            {word.begin + range.begin, word.begin + range.end, word.at_start && range.begin == 0});
      }
    }
    words.words = std::move(pieces);
    return {};
  }

 private:
  Cut cut_;
};

Range range(size_t begin, size_t end) {
  return {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
}

// Cuts at each character for which `matches` holds.
template <typename Matches>
std::vector<Range> cut_at(std::string_view word, SplitBehavior behavior, Matches matches) {
  std::vector<Range> found;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    if (matches(text::next_code_point(word, at))) found.push_back(range(begin, at));
  }
  return split_at_matches(word.size(), found, false, behavior);
}

// Runs of \w and runs of what is neither \w nor white space.
std::vector<Range> whitespace(std::string_view word) {
  enum class Kind { kSpace, kWord, kOther };
  std::vector<Range> pieces;
  Kind last = Kind::kSpace;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    const char32_t c = text::next_code_point(word, at);
    const Kind kind = text::is_word(c)    ? Kind::kWord
                      : text::is_space(c) ? Kind::kSpace
                                          : Kind::kOther;
    if (kind != Kind::kSpace) {
      if (kind != last) pieces.push_back(range(begin, begin));
      pieces.back().end = static_cast<uint32_t>(at);
    }
    last = kind;
  }
  return pieces;
}

std::vector<Range> whitespace_split(std::string_view word) {
  return cut_at(word, SplitBehavior::kRemoved, text::is_space);
}

std::vector<Range> punctuation(std::string_view word, SplitBehavior behavior) {
  return cut_at(word, behavior, [](char32_t c) { return is_in(ReferenceClass::kPunctuation, c); });
}

// Cuts where the script changes. As in the reference, what lies before the first character that
// has a script is lost.
std::vector<Range> unicode_scripts(std::string_view word) {
  std::vector<Range> pieces;
  char32_t last = 0;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    const char32_t script = text::reference_script(text::next_code_point(word, at));
    if (script != 0 && script != last) pieces.push_back(range(begin, begin));
    if (script != 0) last = script;
    if (!pieces.empty()) pieces.back().end = static_cast<uint32_t>(at);
  }
  return pieces;
}

std::vector<Range> fixed_length(std::string_view word, size_t length) {
  std::vector<Range> pieces;
  size_t characters = 0;
  for (size_t at = 0; at < word.size(); ++characters) {
    if (characters % length == 0) pieces.push_back(range(at, at));
    text::next_code_point(word, at);
    pieces.back().end = static_cast<uint32_t>(at);
  }
  return pieces;
}

PreTokenizerPtr make(Cut cut) { return std::make_unique<CutWords>(std::move(cut)); }

Result<PreTokenizerPtr> punctuation_from_json(const Fields& fields) {
  AIRLLM_TRY(const std::string name, fields.string_or("behavior", "Isolated"));
  const auto behavior = split_behavior_from_name(name);
  if (!behavior.has_value()) return fields.wrong("behavior", "a known way to split");
  return make([b = *behavior](std::string_view word) { return punctuation(word, b); });
}

Result<PreTokenizerPtr> delimiter_from_json(const Fields& fields) {
  AIRLLM_TRY(const std::string delimiter, fields.string("delimiter"));
  size_t at = 0;
  const char32_t character = delimiter.empty() ? 0 : text::next_code_point(delimiter, at);
  if (at == 0 || at != delimiter.size()) return fields.wrong("delimiter", "one character");
  return make([=](std::string_view word) {
    return cut_at(word, SplitBehavior::kRemoved, [=](char32_t c) { return c == character; });
  });
}

}  // namespace

Result<PreTokenizerPtr> class_pre_tokenizer(const Fields& fields, std::string_view type) {
  if (type == "Whitespace") return make(whitespace);
  if (type == "WhitespaceSplit") return make(whitespace_split);
  if (type == "UnicodeScripts") return make(unicode_scripts);
  if (type == "Punctuation") return punctuation_from_json(fields);
  if (type == "CharDelimiterSplit") return delimiter_from_json(fields);
  if (type == "BertPreTokenizer") {
    return make([](std::string_view word) {
      std::vector<Range> pieces;
      for (const Range& part : whitespace_split(word)) {
        const std::string_view text = word.substr(part.begin, part.end - part.begin);
        for (const Range& piece : punctuation(text, SplitBehavior::kIsolated)) {
          pieces.push_back({part.begin + piece.begin, part.begin + piece.end});
        }
      }
      return pieces;
    });
  }
  if (type != "FixedLength") return PreTokenizerPtr();
  AIRLLM_TRY(const int64_t length, fields.integer("length", 1, INT32_MAX));
  return make([n = static_cast<size_t>(length)](std::string_view w) { return fixed_length(w, n); });
}

}  // namespace airllm::tokenizer

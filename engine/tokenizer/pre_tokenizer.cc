#include "engine/tokenizer/pre_tokenizer.h"

#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/text/reference_classes.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/pre_tokenizer_classes.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/split.h"

namespace airllm::tokenizer {
namespace {

using PreTokenizerPtr = std::unique_ptr<PreTokenizer>;

// The expression of GPT-2, which ByteLevel uses.
constexpr std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Replaces each word by its pieces; `cut` gives them as ranges of the word.
template <typename Cut>
Status cut_words(Words& words, Cut cut) {
  std::vector<Words::Word> pieces;
  for (const Words::Word& word : words.words) {
    AIRLLM_TRY(const std::vector<Range> ranges, cut(words.view(word)));
    for (const Range& range : ranges) {
      pieces.push_back(
          {word.begin + range.begin, word.begin + range.end, word.at_start && range.begin == 0});
    }
  }
  words.words = std::move(pieces);
  return {};
}

// Replaces the text of each word; `write` appends the new text of a word to a string.
template <typename Write>
void rewrite_words(Words& words, Write write) {
  std::string text;
  text.reserve(words.text.size());
  for (Words::Word& word : words.words) {
    const auto begin = static_cast<uint32_t>(text.size());
    write(word, words.view(word), text);
    word.begin = begin;
    word.end = static_cast<uint32_t>(text.size());
  }
  words.text = std::move(text);
}

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  Status apply(Words& words) const override {
    return cut_words(words, [&](std::string_view word) -> Result<std::vector<Range>> {
      AIRLLM_TRY(const std::vector<Range> matches, pattern_.find_all(word));
      return split_at_matches(word.size(), matches, invert_, behavior_);
    });
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

class Digits : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}
  Status apply(Words& words) const override {
    return cut_words(words, [&](std::string_view word) -> Result<std::vector<Range>> {
      std::vector<Range> digits;
      for (size_t at = 0; at < word.size();) {
        const size_t begin = at;
        if (!is_in(text::ReferenceClass::kNumeric, text::next_code_point(word, at))) continue;
        digits.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(at)});
      }
      return split_at_matches(word.size(), digits, false,
                              individual_ ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
    });
  }

 private:
  bool individual_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(Pattern expression, bool add_prefix_space, bool use_regex)
      : expression_(std::move(expression)),
        add_prefix_space_(add_prefix_space),
        use_regex_(use_regex) {}

  Status apply(Words& words) const override {
    if (add_prefix_space_) {
      rewrite_words(words, [](const Words::Word&, std::string_view word, std::string& out) {
        if (!word.starts_with(' ')) out += ' ';
        out += word;
      });
    }
    if (use_regex_) {
      AIRLLM_TRY_VOID(cut_words(words, [&](std::string_view word) -> Result<std::vector<Range>> {
        AIRLLM_TRY(const std::vector<Range> matches, expression_.find_all(word));
        return split_at_matches(word.size(), matches, false, SplitBehavior::kIsolated);
      }));
    }
    rewrite_words(words, [](const Words::Word&, std::string_view word, std::string& out) {
      append_as_byte_level(out, word);
    });
    return {};
  }

 private:
  Pattern expression_;
  bool add_prefix_space_;
  bool use_regex_;
};

// Writes spaces as a visible character (U+2581, as SentencePiece does) and cuts before each.
class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kNever, kFirst, kAlways };
  Metaspace(Pattern replacement_pattern, std::string replacement, Prepend prepend, bool split)
      : pattern_(std::move(replacement_pattern)),
        replacement_(std::move(replacement)),
        prepend_(prepend),
        split_(split) {}

  Status apply(Words& words) const override {
    rewrite_words(words, [&](const Words::Word& word, std::string_view text, std::string& out) {
      const bool wanted =
          prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && word.at_start);
      if (wanted && !text.starts_with(' ') && !text.starts_with(replacement_)) out += replacement_;
      for (const char c : text) {
        if (c == ' ') {
          out += replacement_;
        } else {
          out += c;
        }
      }
    });
    if (!split_) return {};
    return cut_words(words, [&](std::string_view word) -> Result<std::vector<Range>> {
      AIRLLM_TRY(const std::vector<Range> matches, pattern_.find_all(word));
      return split_at_matches(word.size(), matches, false, SplitBehavior::kMergedWithNext);
    });
  }

 private:
  Pattern pattern_;
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<PreTokenizerPtr> steps) : steps_(std::move(steps)) {}
  Status apply(Words& words) const override {
    for (const PreTokenizerPtr& step : steps_) AIRLLM_TRY_VOID(step->apply(words));
    return {};
  }

 private:
  std::vector<PreTokenizerPtr> steps_;
};

Result<PreTokenizerPtr> sequence_from_json(const Fields& fields) {
  AIRLLM_TRY(const Json* list, fields.array("pretokenizers"));
  std::vector<PreTokenizerPtr> steps;
  for (const Json& element : *list) {
    AIRLLM_TRY(PreTokenizerPtr step, PreTokenizer::from_json(element, fields.where()));
    steps.push_back(std::move(step));
  }
  return PreTokenizerPtr(new Sequence(std::move(steps)));
}

Result<PreTokenizerPtr> split_from_json(const Fields& fields) {
  const Json* pattern_json = fields.find("pattern");
  if (pattern_json == nullptr) return fields.wrong("pattern", "an object");
  AIRLLM_TRY(Pattern pattern, Pattern::from_json(*pattern_json, fields.where() + ": Split"));
  AIRLLM_TRY(const std::string name, fields.string("behavior"));
  const auto behavior = split_behavior_from_name(name);
  if (!behavior.has_value()) return fields.wrong("behavior", "a known way to split");
  AIRLLM_TRY(const bool invert, fields.boolean_or("invert", false));
  return PreTokenizerPtr(new Split(std::move(pattern), *behavior, invert));
}

Result<PreTokenizerPtr> byte_level_from_json(const Fields& fields) {
  AIRLLM_TRY(Pattern expression, Pattern::regex(kGpt2Expression, fields.where() + ": ByteLevel"));
  AIRLLM_TRY(const bool add_prefix_space, fields.boolean_or("add_prefix_space", true));
  AIRLLM_TRY(const bool use_regex, fields.boolean_or("use_regex", true));
  return PreTokenizerPtr(new ByteLevel(std::move(expression), add_prefix_space, use_regex));
}

Result<Metaspace::Prepend> metaspace_prepend(const Fields& fields) {
  AIRLLM_TRY(const std::string scheme, fields.string_or("prepend_scheme", ""));
  // Files from before prepend_scheme have this flag.
  AIRLLM_TRY(const bool add_prefix_space, fields.boolean_or("add_prefix_space", true));
  if (!add_prefix_space || scheme == "never") return Metaspace::Prepend::kNever;
  if (scheme.empty() || scheme == "always") return Metaspace::Prepend::kAlways;
  if (scheme == "first") return Metaspace::Prepend::kFirst;
  return fields.wrong("prepend_scheme", "always, first or never");
}

Result<PreTokenizerPtr> metaspace_from_json(const Fields& fields) {
  AIRLLM_TRY(std::string replacement, fields.string_or("replacement", "\u2581"));
  AIRLLM_TRY(Pattern pattern, Pattern::literal(replacement, fields.where() + ": replacement"));
  AIRLLM_TRY(const Metaspace::Prepend prepend, metaspace_prepend(fields));
  AIRLLM_TRY(const bool split, fields.boolean_or("split", true));
  return PreTokenizerPtr(new Metaspace(std::move(pattern), std::move(replacement), prepend, split));
}

}  // namespace

Result<std::unique_ptr<PreTokenizer>> PreTokenizer::from_json(const Json& json,
                                                              const std::string& where) {
  const Fields fields(json, where);
  AIRLLM_TRY(const std::string type, fields.type());
  if (type == "Sequence") return sequence_from_json(fields);
  if (type == "Split") return split_from_json(fields);
  if (type == "ByteLevel") return byte_level_from_json(fields);
  if (type == "Metaspace") return metaspace_from_json(fields);
  if (type == "Digits") {
    AIRLLM_TRY(const bool individual, fields.boolean_or("individual_digits", false));
    return PreTokenizerPtr(new Digits(individual));
  }
  AIRLLM_TRY(PreTokenizerPtr classes, class_pre_tokenizer(fields, type));
  if (classes != nullptr) return classes;
  return fields.unknown(type);
}

}  // namespace airllm::tokenizer

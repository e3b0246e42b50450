#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/json.h"
#include "engine/text/inert_in_unicode9.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/fields.h"
#include "engine/tokenizer/normalizer_characters.h"
#include "engine/tokenizer/normalizer_precompiled.h"
#include "engine/tokenizer/regex.h"

namespace airllm::tokenizer {
namespace {

using NormalizerPtr = std::unique_ptr<Normalizer>;

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  Result<text::MarkedText> apply(text::MarkedText text) const override {
    if (text.empty()) return text;
    text::MarkedText result(text_, text.origin_at(0));
    result.append(text);
    return result;
  }

 private:
  std::string text_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Result<text::MarkedText> apply(text::MarkedText text) const override {
    AIRLLM_TRY(const std::vector<Range> matches, pattern_.find_all(text.text()));
    if (matches.empty()) return text;
    text::MarkedText result;
    size_t done = 0;
    for (const Range& match : matches) {
      result.append_range(text, done, match.begin);
      result.append(content_, text.origin_of(match.begin, match.end));
      done = match.end;
    }
    result.append_range(text, done, text.size());
    return result;
  }

 private:
  Pattern pattern_;
  std::string content_;
};

// The normalisation forms of Unicode (UAX 15).
class UnicodeForm : public Normalizer {
 public:
  enum class Version { kUnicode9, kLibrary };
  UnicodeForm(utf8proc_option_t form, Version version) : form_(form), version_(version) {}

  Result<text::MarkedText> apply(text::MarkedText text) const override {
    const std::string_view bytes(text.text());
    const auto is_ascii = [&](size_t i) { return static_cast<unsigned char>(bytes[i]) < 0x80; };
    text::MarkedText result;
    size_t done = 0;
    size_t at = 0;
    while (at < bytes.size()) {
      if (is_ascii(at)) {
        ++at;
        continue;
      }
      // ASCII stays as it is in all forms, but for a character that takes a mark that follows; and
      // nothing composes across the ASCII character behind the run.
      const size_t begin = at > 0 ? at - 1 : at;
      while (at < bytes.size() && !is_ascii(at)) ++at;
      result.append_range(text, done, begin);
      AIRLLM_TRY_VOID(append_run(text, begin, at, result));
      done = at;
    }
    if (done == 0) return text;
    result.append_range(text, done, bytes.size());
    return result;
  }

 private:
  Status append_run(const text::MarkedText& text, size_t begin, size_t end,
                    text::MarkedText& result) const {
    const std::string_view run = std::string_view(text.text()).substr(begin, end - begin);
    AIRLLM_TRY(const std::string whole, normalise(run));
    if (text.run_end(begin) >= end) {
      result.append(whole, text.origin_at(begin));
      return {};
    }
    // Several parts: where they do not compose with each other, each keeps its origin.
    text::MarkedText pieces;
    for (size_t at = begin; at < end;) {
      const size_t stop = std::min(end, text.run_end(at));
      AIRLLM_TRY(const std::string piece,
                 normalise(std::string_view(text.text()).substr(at, stop - at)));
      pieces.append(piece, text.origin_at(at));
      at = stop;
    }
    if (pieces.text() == whole) {
      result.append(pieces);
    } else {
      result.append(whole, text::kUserOrigin);
    }
    return {};
  }

  Result<std::string> normalise(std::string_view text) const {
    std::string result;
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      if (!stands_alone(text::next_code_point(text, at))) continue;
      AIRLLM_TRY_VOID(append_normalised(text.substr(done, begin - done), result));
      result += text.substr(begin, at - begin);
      done = at;
    }
    AIRLLM_TRY_VOID(append_normalised(text.substr(done), result));
    return result;
  }

  // Whether the character stays as it is, between texts of their own. With Unicode 9, as in the
  // reference, those are the newer ones. The library drops a U+11A7 behind a Hangul syllable, as if
  // it were a final consonant; it is the place before the first one, and composes with nothing.
  bool stands_alone(char32_t c) const {
    return c == 0x11A7 || (version_ == Version::kUnicode9 && text::is_inert_in_unicode9(c));
  }

  Status append_normalised(std::string_view text, std::string& result) const {
    if (text.empty()) return {};
    utf8proc_uint8_t* out = nullptr;
    const utf8proc_ssize_t length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &out, form_);
    if (length < 0) {
      return Unexpected(ErrorCode::kOs,
                        std::string("Unicode normalisation: ") + utf8proc_errmsg(length));
    }
    result.append(reinterpret_cast<const char*>(out), static_cast<size_t>(length));
    std::free(out);
    return {};
  }

  utf8proc_option_t form_;
  Version version_;
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<NormalizerPtr> steps) : steps_(std::move(steps)) {}
  Result<text::MarkedText> apply(text::MarkedText text) const override {
    for (const NormalizerPtr& step : steps_) {
      AIRLLM_TRY(text, step->apply(std::move(text)));
    }
    return text;
  }

 private:
  std::vector<NormalizerPtr> steps_;
};

Result<NormalizerPtr> sequence_from_json(const Fields& fields) {
  AIRLLM_TRY(const Json* list, fields.array("normalizers"));
  std::vector<NormalizerPtr> steps;
  for (const Json& element : *list) {
    AIRLLM_TRY(NormalizerPtr step, Normalizer::from_json(element, fields.where()));
    steps.push_back(std::move(step));
  }
  return Normalizer::in_sequence(std::move(steps));
}

NormalizerPtr unicode_form(unsigned options, UnicodeForm::Version version) {
  return std::make_unique<UnicodeForm>(
      static_cast<utf8proc_option_t>(options | unsigned{UTF8PROC_STABLE}), version);
}

NormalizerPtr unicode_form(std::string_view type) {
  const auto make = [](unsigned options) {
    return unicode_form(options, UnicodeForm::Version::kUnicode9);
  };
  if (type == "NFC") return make(UTF8PROC_COMPOSE);
  if (type == "NFD") return make(UTF8PROC_DECOMPOSE);
  if (type == "NFKC") return make(unsigned{UTF8PROC_COMPOSE} | unsigned{UTF8PROC_COMPAT});
  if (type == "NFKD") return make(unsigned{UTF8PROC_DECOMPOSE} | unsigned{UTF8PROC_COMPAT});
  return nullptr;
}

}  // namespace

NormalizerPtr Normalizer::nfc() {
  return unicode_form(UTF8PROC_COMPOSE, UnicodeForm::Version::kLibrary);
}

NormalizerPtr Normalizer::in_sequence(std::vector<NormalizerPtr> steps) {
  return std::make_unique<Sequence>(std::move(steps));
}

Status check_normalized_size(size_t bytes) {
  constexpr size_t kMaxNormalizedBytes = size_t{1} << 30;
  if (bytes <= kMaxNormalizedBytes) return {};
  return Unexpected(ErrorCode::kData, "the normalised text is longer than 1 GiB",
                    "give a shorter text");
}

Result<std::unique_ptr<Normalizer>> Normalizer::from_json(const Json& json,
                                                          const std::string& where) {
  const Fields fields(json, where);
  AIRLLM_TRY(const std::string type, fields.type());
  if (type == "Sequence") return sequence_from_json(fields);
  if (type == "Prepend") {
    AIRLLM_TRY(std::string text, fields.string("prepend"));
    return NormalizerPtr(new Prepend(std::move(text)));
  }
  if (type == "Replace") {
    const Json* pattern_json = fields.find("pattern");
    if (pattern_json == nullptr) return fields.wrong("pattern", "an object");
    AIRLLM_TRY(Pattern pattern, Pattern::from_json(*pattern_json, where + ": Replace"));
    AIRLLM_TRY(std::string content, fields.string("content"));
    return NormalizerPtr(new Replace(std::move(pattern), std::move(content)));
  }
  if (type == "Precompiled") return precompiled_normalizer(fields);
  if (NormalizerPtr form = unicode_form(type)) return form;
  AIRLLM_TRY(NormalizerPtr characters, character_normalizer(fields, type));
  if (characters != nullptr) return characters;
  return fields.unknown(type);
}

}  // namespace airllm::tokenizer

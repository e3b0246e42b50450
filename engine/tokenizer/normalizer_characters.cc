#include "engine/tokenizer/normalizer_characters.h"

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "engine/text/reference_classes.h"
#include "engine/text/unicode.h"
#include "engine/tokenizer/byte_level.h"

namespace airllm::tokenizer {
namespace {

using text::is_in;
using text::ReferenceClass;
using NormalizerPtr = std::unique_ptr<Normalizer>;

// Writes what one character, whose bytes are `bytes`, becomes.
using Rewrite = void (*)(std::string& out, char32_t c, std::string_view bytes);

class EachCharacter : public Normalizer {
 public:
  explicit EachCharacter(Rewrite rewrite) : rewrite_(rewrite) {}
  Result<text::MarkedText> apply(text::MarkedText text) const override {
    const std::string_view bytes(text.text());
    return text::map_characters(text, [&](std::string& out, size_t begin, size_t end, char32_t c) {
      rewrite_(out, c, bytes.substr(begin, end - begin));
    });
  }

 private:
  Rewrite rewrite_;
};

void lowercase(std::string& out, char32_t c, std::string_view /*bytes*/) {
  text::append_lowercase(out, c);
}
void strip_accents(std::string& out, char32_t c, std::string_view bytes) {
  if (!is_in(ReferenceClass::kMark, c)) out += bytes;
}
void nmt(std::string& out, char32_t c, std::string_view bytes) {
  if (is_in(ReferenceClass::kNmtRemoved, c)) return;
  out += is_in(ReferenceClass::kNmtSpace, c) ? std::string_view(" ") : bytes;
}
void byte_level(std::string& out, char32_t /*c*/, std::string_view bytes) {
  append_as_byte_level(out, bytes);
}
void bert_clean(std::string& out, char32_t c, std::string_view bytes) {
  if (is_in(ReferenceClass::kBertControl, c)) return;
  out += is_in(ReferenceClass::kBertSpace, c) ? std::string_view(" ") : bytes;
}
void bert_ideographs(std::string& out, char32_t c, std::string_view bytes) {
  const bool alone = is_in(ReferenceClass::kBertIdeograph, c);
  if (alone) out += ' ';
  out += bytes;
  if (alone) out += ' ';
}
void bert_accents(std::string& out, char32_t c, std::string_view bytes) {
  if (!is_in(ReferenceClass::kBertAccent, c)) out += bytes;
}

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Result<text::MarkedText> apply(text::MarkedText text) const override {
    const std::string_view bytes(text.text());
    size_t begin = 0;
    size_t end = bytes.size();
    while (left_ && begin < end) {
      size_t behind = begin;
      if (!text::is_space(text::next_code_point(bytes, behind))) break;
      begin = behind;
    }
    while (right_ && begin < end) {
      size_t before = end;
      if (!text::is_space(text::previous_code_point(bytes, before))) break;
      end = before;
    }
    return begin == 0 && end == bytes.size() ? text : text.substr(begin, end);
  }

 private:
  bool left_, right_;
};

NormalizerPtr each(Rewrite rewrite) { return std::make_unique<EachCharacter>(rewrite); }

Result<NormalizerPtr> bert(const Fields& fields) {
  AIRLLM_TRY(const bool clean, fields.boolean_or("clean_text", true));
  AIRLLM_TRY(const bool ideographs, fields.boolean_or("handle_chinese_chars", true));
  AIRLLM_TRY(const bool lower, fields.boolean_or("lowercase", true));
  AIRLLM_TRY(const bool accents, fields.boolean_or("strip_accents", lower));
  std::vector<NormalizerPtr> steps;
  if (clean) steps.push_back(each(bert_clean));
  if (ideographs) steps.push_back(each(bert_ideographs));
  if (accents) {
    AIRLLM_TRY(NormalizerPtr nfd, Normalizer::from_json(Json{{"type", "NFD"}}, fields.where()));
    steps.push_back(std::move(nfd));
    steps.push_back(each(bert_accents));
  }
  if (lower) steps.push_back(each(lowercase));
  return Normalizer::in_sequence(std::move(steps));
}

}  // namespace

Result<NormalizerPtr> character_normalizer(const Fields& fields, std::string_view type) {
  if (type == "Lowercase") return each(lowercase);
  if (type == "StripAccents") return each(strip_accents);
  if (type == "Nmt") return each(nmt);
  if (type == "ByteLevel") return each(byte_level);
  if (type == "BertNormalizer") return bert(fields);
  if (type != "Strip") return NormalizerPtr();
  AIRLLM_TRY(const bool left, fields.boolean_or("strip_left", true));
  AIRLLM_TRY(const bool right, fields.boolean_or("strip_right", true));
  return NormalizerPtr(new Strip(left, right));
}

}  // namespace airllm::tokenizer

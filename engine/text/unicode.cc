#include "engine/text/unicode.h"

#include <oniguruma.h>

#include "base/check.h"
#include "engine/text/code_point_set.h"

namespace airllm::text {
namespace {

CodePointRanges named(std::string_view name) {
  std::optional<CodePointRanges> ranges = CodePointRanges::named(name);
  AIRLLM_CHECK(ranges.has_value());
  return *std::move(ranges);
}

}  // namespace

char32_t next_code_point(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) {
    ++at;
    return lead;
  }
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t c = lead & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) c = (c << 6) | (byte(i) & 0x3FU);
  at += length;
  return c;
}

char32_t previous_code_point(std::string_view text, size_t& end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U);
  size_t at = end;
  return next_code_point(text, at);
}

bool is_word(char32_t c) {
  static const CodePointSet word(named("Alphabetic")
                                     .united(named("M"))
                                     .united(named("Nd"))
                                     .united(named("Pc"))
                                     .united(CodePointRanges::of(0x200C, 0x200E)));
  return word.contains(c);
}

bool is_space(char32_t c) {
  return ONIGENC_IS_CODE_SPACE(ONIG_ENCODING_UTF8, static_cast<OnigCodePoint>(c)) != 0;
}

}  // namespace airllm::text

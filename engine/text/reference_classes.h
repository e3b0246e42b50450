// Classes of code points as Hugging Face tokenizers has them. Its components use Unicode tables of
// several ages, so these are asked from it (tools/unicode_tables/reference_tables.py). Its \w and
// its white space are those of unicode.h.
#pragma once

#include <string>

namespace airllm::text {

enum class ReferenceClass {
  kNumeric,        // what Digits cuts out
  kPunctuation,    // ASCII's and Unicode's
  kMark,           // what StripAccents removes
  kBertControl,    // what clean_text of BertNormalizer removes,
  kBertSpace,      // makes a space (but for the space itself),
  kBertAccent,     // what strip_accents removes behind NFD,
  kBertIdeograph,  // and what gets spaces around it
  kNmtRemoved,
  kNmtSpace,
};

bool is_in(ReferenceClass which, char32_t c);

// A number for the script by which UnicodeScripts cuts; 0 joins every other.
char32_t reference_script(char32_t c);

// Appends what Lowercase makes of the character.
void append_lowercase(std::string& out, char32_t c);

}  // namespace airllm::text

#include "engine/text/reference_classes.h"

#include <algorithm>
#include <span>

#include "base/utf8.h"
#include "engine/text/range_rows.h"

namespace airllm::text {
namespace {

#include "engine/text/reference_tables.inc"

// Pairs of the first and the last code point of each range.
std::span<const char32_t> ranges_of(ReferenceClass which) {
  switch (which) {
    case ReferenceClass::kNumeric: return kNumericRanges;
    case ReferenceClass::kPunctuation: return kPunctuationRanges;
    case ReferenceClass::kMark: return kMarkRanges;
    case ReferenceClass::kBertControl: return kBertControlRanges;
    case ReferenceClass::kBertSpace: return kBertSpaceRanges;
    case ReferenceClass::kBertAccent: return kBertAccentRanges;
    case ReferenceClass::kBertIdeograph: return kBertIdeographRanges;
    case ReferenceClass::kNmtRemoved: return kNmtRemovedRanges;
    case ReferenceClass::kNmtSpace: return kNmtSpaceRanges;
  }
  return {};
}

}  // namespace

bool is_in(ReferenceClass which, char32_t c) {
  const std::span<const char32_t> ranges = ranges_of(which);
  const auto above = std::upper_bound(ranges.begin(), ranges.end(), c);
  // Behind a first code point: inside a range. A last one belongs to its range as well.
  return (above - ranges.begin()) % 2 == 1 || (above != ranges.begin() && *(above - 1) == c);
}

char32_t reference_script(char32_t c) { return value_in_ranges(kScriptRanges, c); }

void append_lowercase(std::string& out, char32_t c) {
  constexpr size_t kRow = 3;  // the character, and one or two of lower case
  size_t low = 0;
  size_t high = std::size(kLowercase) / kRow;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (kLowercase[middle * kRow] < c) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low * kRow == std::size(kLowercase) || kLowercase[low * kRow] != c) {
    append_utf8(out, c);
    return;
  }
  append_utf8(out, kLowercase[low * kRow + 1]);
  if (const char32_t second = kLowercase[low * kRow + 2]; second != 0) append_utf8(out, second);
}

}  // namespace airllm::text

#include "engine/text/code_point_set.h"

#include <algorithm>
#include <string>

#include "engine/text/unicode.h"
#include "engine/text/unicode16_tables.h"

namespace airllm::text {
namespace {

using Range = CodePointRanges::Range;

std::string loose_name(std::string_view name) {
  std::string loose;
  for (const char c : name) {
    if (c == '_' || c == '-' || c == ' ') continue;
    loose += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return loose;
}

// The ranges of one class of a table of starts.
void append_class(const uint32_t* starts, size_t size, uint8_t number, std::vector<Range>& out) {
  for (size_t i = 0; i < size; ++i) {
    if ((starts[i] & 255U) != number) continue;
    out.push_back({starts[i] >> 8U, i + 1 < size ? starts[i + 1] >> 8U : kCodePointLimit});
  }
}

struct LongName {
  std::string_view name, category;
};
constexpr LongName kLongNames[] = {
    {"letter", "l"},
    {"mark", "m"},
    {"number", "n"},
    {"punctuation", "p"},
    {"symbol", "s"},
    {"separator", "z"},
    {"other", "c"},
    {"uppercaseletter", "lu"},
    {"lowercaseletter", "ll"},
    {"titlecaseletter", "lt"},
    {"modifierletter", "lm"},
    {"otherletter", "lo"},
    {"casedletter", "lc"},
    {"nonspacingmark", "mn"},
    {"spacingmark", "mc"},
    {"enclosingmark", "me"},
    {"decimalnumber", "nd"},
    {"letternumber", "nl"},
    {"othernumber", "no"},
    {"digit", "nd"},
    {"space", "whitespace"},
    {"alpha", "alphabetic"},
    {"upper", "uppercase"},
    {"lower", "lowercase"},
};

// The group of characters that fold together with `c`; empty when there is none.
std::span<const uint32_t> fold_group(char32_t c) {
  for (size_t i = 0; i < kFoldGroupsSize; i += kFoldGroups[i] + 1) {
    const std::span<const uint32_t> group(kFoldGroups + i + 1, kFoldGroups[i]);
    if (std::find(group.begin(), group.end(), c) != group.end()) return group;
  }
  return {};
}

}  // namespace

CodePointRanges::CodePointRanges(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (const Range& range : ranges) {
    if (range.begin >= range.end) continue;
    if (!ranges_.empty() && range.begin <= ranges_.back().end) {
      ranges_.back().end = std::max(ranges_.back().end, range.end);
    } else {
      ranges_.push_back(range);
    }
  }
}

CodePointRanges CodePointRanges::of(char32_t begin, char32_t end) {
  return CodePointRanges(std::vector<Range>{{begin, end}});
}

CodePointRanges CodePointRanges::category(std::string_view name) {
  std::vector<Range> ranges;
  for (size_t i = 0; i < kCategoryNamesSize; ++i) {
    const std::string_view candidate(kCategoryNames[i].name);
    const bool cased =
        name == "lc" && (candidate == "lu" || candidate == "ll" || candidate == "lt");
    if (candidate == name || (name.size() == 1 && candidate[0] == name[0]) || cased) {
      append_class(kCategoryStarts, kCategoryStartsSize, kCategoryNames[i].number, ranges);
    }
  }
  return CodePointRanges(std::move(ranges));
}

std::optional<CodePointRanges> CodePointRanges::named(std::string_view name) {
  std::string loose = loose_name(name);
  if (loose == "any") return all();
  for (const LongName& known : kLongNames) {
    if (loose == known.name) loose = known.category;
  }
  if (CodePointRanges found = category(loose); !found.empty()) return found;
  for (size_t i = 0; i < kPropertiesSize; ++i) {
    if (loose != kProperties[i].name) continue;
    std::vector<Range> ranges;
    for (uint32_t edge = 0; edge < kProperties[i].count; edge += 2) {
      const uint32_t* pair = kPropertyEdges + kProperties[i].first + edge;
      ranges.push_back({pair[0], pair[1]});
    }
    return CodePointRanges(std::move(ranges));
  }
  for (size_t i = 0; i < kScriptNamesSize; ++i) {
    if (loose != kScriptNames[i].name) continue;
    std::vector<Range> ranges;
    append_class(kScriptStarts, kScriptStartsSize, kScriptNames[i].number, ranges);
    return CodePointRanges(std::move(ranges));
  }
  return std::nullopt;
}

CodePointRanges CodePointRanges::folded(char32_t c) {
  std::vector<Range> ranges{{c, c + 1}};
  for (const uint32_t other : fold_group(c)) ranges.push_back({other, other + 1});
  return CodePointRanges(std::move(ranges));
}

bool CodePointRanges::contains(char32_t c) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [c](const Range& range) { return range.begin <= c && c < range.end; });
}

CodePointRanges CodePointRanges::united(const CodePointRanges& other) const {
  std::vector<Range> ranges = ranges_;
  ranges.insert(ranges.end(), other.ranges_.begin(), other.ranges_.end());
  return CodePointRanges(std::move(ranges));
}

CodePointRanges CodePointRanges::complement() const {
  std::vector<Range> ranges;
  char32_t done = 0;
  for (const Range& range : ranges_) {
    ranges.push_back({done, range.begin});
    done = range.end;
  }
  ranges.push_back({done, kCodePointLimit});
  return CodePointRanges(std::move(ranges));
}

CodePointRanges CodePointRanges::intersected(const CodePointRanges& other) const {
  return complement().united(other.complement()).complement();
}

bool folds_to_several(char32_t c) {
  return std::find(kExpandingFolds, kExpandingFolds + kExpandingFoldsSize, c) !=
         kExpandingFolds + kExpandingFoldsSize;
}

bool ends_in_expanded_fold(std::span<const char32_t> text) {
  for (size_t i = 0; i < kExpandedFoldsSize; ++i) {
    std::string_view rest(kExpandedFolds[i]);
    size_t end = rest.size();
    size_t length = text.size();
    bool equal = true;
    while (equal && end > 0 && length > 0) {
      equal = CodePointRanges::folded(previous_code_point(rest, end)).contains(text[--length]);
    }
    if (equal && end == 0) return true;
  }
  return false;
}

CodePointSet::CodePointSet(const CodePointRanges& ranges) {
  auto range = ranges.ranges().begin();
  for (size_t block = 0; block < index_.size(); ++block) {
    const auto begin = static_cast<char32_t>(block * 256);
    const char32_t end = begin + 256;
    Block bits{};
    for (; range != ranges.ranges().end() && range->begin < end; ++range) {
      const char32_t last = std::min(range->end, end);
      for (char32_t c = std::max(range->begin, begin); c < last; ++c) {
        bits[(c & 255U) >> 6U] |= uint64_t{1} << (c & 63U);
      }
      if (range->end > end) break;
    }
    auto found = std::find(blocks_.rbegin(), blocks_.rend(), bits);
    if (found == blocks_.rend()) {
      blocks_.push_back(bits);
      found = blocks_.rbegin();
    }
    index_[block] = static_cast<uint16_t>(blocks_.rend() - found - 1);
  }
  for (unsigned char c = 0; c < 0x80; ++c) ascii_[c] = contains(c);
}

}  // namespace airllm::text

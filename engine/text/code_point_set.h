// Sets of code points by the classes of Unicode 16: sorted ranges to compute with, and a two-level
// bitmap to look up in.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace airllm::text {

inline constexpr char32_t kCodePointLimit = 0x110000;

// Sorted ranges that neither touch nor overlap.
class CodePointRanges {
 public:
  struct Range {
    char32_t begin, end;  // [begin, end)
    auto operator<=>(const Range&) const = default;
  };

  CodePointRanges() = default;
  static CodePointRanges of(char32_t begin, char32_t end);
  static CodePointRanges all() { return of(0, kCodePointLimit); }
  // The class that \p{name} means: a general category or a group of them, a script or a property.
  // Case, spaces, '-' and '_' do not count. Nothing for an unknown name.
  static std::optional<CodePointRanges> named(std::string_view name);
  // `c` and the characters that equal it without case.
  static CodePointRanges folded(char32_t c);

  const std::vector<Range>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t c) const;
  CodePointRanges united(const CodePointRanges& other) const;
  CodePointRanges intersected(const CodePointRanges& other) const;
  CodePointRanges complement() const;
  bool operator==(const CodePointRanges&) const = default;

 private:
  explicit CodePointRanges(std::vector<Range> ranges);  // sorts and joins
  static CodePointRanges category(std::string_view name);

  std::vector<Range> ranges_;
};

// Whether a single character expands when case is folded (as U+00DF does to "ss").
bool folds_to_several(char32_t c);
// Whether the end of `text` equals, without case, what a single character expands to.
bool ends_in_expanded_fold(std::span<const char32_t> text);

// Immutable; 9 KB and 32 bytes for each block of 256 code points that differs from the others.
class CodePointSet {
 public:
  explicit CodePointSet(const CodePointRanges& ranges);
  bool contains(char32_t c) const {
    return (blocks_[index_[c >> 8U]][(c & 255U) >> 6U] >> (c & 63U) & 1U) != 0;
  }
  bool contains_ascii(unsigned char byte) const { return ascii_[byte]; }  // false from 0x80

 private:
  using Block = std::array<uint64_t, 4>;
  std::array<bool, 256> ascii_{};
  std::array<uint16_t, kCodePointLimit / 256> index_{};
  std::vector<Block> blocks_;
};

}  // namespace airllm::text

#include "engine/text/graphemes.h"

#include <cstdint>

#include "engine/text/range_rows.h"
#include "engine/text/unicode.h"

namespace airllm::text {
namespace {

#include "engine/text/grapheme_tables.inc"

enum class Cluster : uint8_t {
  kOther,
  kControl,  // CR and LF too
  kExtend,
  kJoiner,  // ZWJ
  kPrepend,
  kSpacing,
  kLeading,   // Hangul L,
  kVowel,     // V
  kTrailing,  // and T
  kPictograph,
  kConsonant,  // Indic_Conjunct_Break
  kSyllable,   // Hangul LV
  kClosed,     // and LVT
  kRegional,
};

// Beside the class, what Indic_Conjunct_Break says of a mark.
constexpr uint32_t kClassBits = 15, kIndicExtend = 16, kIndicLinker = 32;

struct Character {
  Cluster cluster;
  bool indic_extend, indic_linker;
};

Character classify(char32_t c) {
  if (c >= 0x20 && c < 0x7F) return {Cluster::kOther, false, false};
  if (c >= 0xAC00 && c <= 0xD7A3) {
    return {(c - 0xAC00) % 28 == 0 ? Cluster::kSyllable : Cluster::kClosed, false, false};
  }
  if (c >= 0x1F1E6 && c <= 0x1F1FF) return {Cluster::kRegional, false, false};
  const char32_t row = value_in_ranges(kClusterRanges, c);
  return {static_cast<Cluster>(row & kClassBits), (row & kIndicExtend) != 0,
          (row & kIndicLinker) != 0};
}

// What lies before a place within a cluster, as far as the rules ask.
class Before {
 public:
  explicit Before(Character first) { add(first); }

  void add(Character next) {
    const bool is_mark = next.indic_extend || next.indic_linker;
    if (next.cluster == Cluster::kConsonant) {
      consonant_ = true;
      linker_ = false;
    } else {
      consonant_ = consonant_ && is_mark;
      linker_ = consonant_ && (linker_ || next.indic_linker);
    }
    joins_pictograph_ = pictograph_ && next.cluster == Cluster::kJoiner;
    pictograph_ =
        next.cluster == Cluster::kPictograph || (pictograph_ && next.cluster == Cluster::kExtend);
    regionals_ = next.cluster == Cluster::kRegional ? regionals_ + 1 : 0;
    last_ = next.cluster;
  }

  // The rules GB3 to GB13, but for CR LF.
  bool breaks_before(Cluster next) const {
    if (last_ == Cluster::kControl || next == Cluster::kControl) return true;
    if (next == Cluster::kExtend || next == Cluster::kJoiner || next == Cluster::kSpacing ||
        last_ == Cluster::kPrepend) {
      return false;
    }
    switch (next) {
      case Cluster::kLeading:
      case Cluster::kSyllable:
      case Cluster::kClosed: return last_ != Cluster::kLeading;
      case Cluster::kVowel:
        return last_ != Cluster::kLeading && last_ != Cluster::kVowel &&
               last_ != Cluster::kSyllable;
      case Cluster::kTrailing:
        return last_ != Cluster::kVowel && last_ != Cluster::kTrailing &&
               last_ != Cluster::kSyllable && last_ != Cluster::kClosed;
      case Cluster::kConsonant: return !linker_;
      case Cluster::kPictograph: return !joins_pictograph_;
      case Cluster::kRegional: return regionals_ % 2 == 0;
      default: return true;
    }
  }

 private:
  Cluster last_ = Cluster::kOther;
  bool consonant_ = false;         // a consonant, then only marks that continue it,
  bool linker_ = false;            // one of which links it to the next
  bool pictograph_ = false;        // a pictograph, then only Extend
  bool joins_pictograph_ = false;  // the same, then ZWJ
  size_t regionals_ = 0;           // in a row
};

}  // namespace

size_t grapheme_end(std::string_view text, size_t at) {
  if (text.substr(at).starts_with("\r\n")) return at + 2;
  Before before(classify(next_code_point(text, at)));
  while (at < text.size()) {
    size_t behind = at;
    const Character next = classify(next_code_point(text, behind));
    if (before.breaks_before(next.cluster)) break;
    before.add(next);
    at = behind;
  }
  return at;
}

}  // namespace airllm::text

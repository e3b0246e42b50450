// After the original's bpe_model.cc. Two neighbours are merged when their joined text is a piece;
// of all such pairs the one whose piece has the highest score goes first, and of equal ones the
// leftmost. A text may be as long as a prompt, without words that would cut it, so pairs wait in a
// heap.
#include <algorithm>
#include <bit>
#include <queue>
#include <unordered_map>

#include "engine/text/unicode.h"
#include "engine/tokenizer/sentencepiece_model.h"

namespace airllm::tokenizer {
namespace {

using text::MarkedText;

constexpr std::string_view kSpace = "\u2581";
constexpr int kMaxResegmentDepth = 100;  // as the original

// Orders pairs: the higher the score the smaller, then by position. Like the original's comparison,
// it tells -0 from +0.
uint64_t order_of(float score, uint32_t left) {
  const auto bits = std::bit_cast<uint32_t>(score);
  const uint32_t ascending = (bits >> 31U) != 0 ? ~bits : bits | 0x80000000U;
  return uint64_t{~ascending} << 32U | left;
}

class Bpe : public SentencePieceModel {
 public:
  explicit Bpe(const SentencePieceVocabulary& vocabulary) : vocabulary_(vocabulary) {
    bool space_behind_other = false;
    bool other_behind_space = false;
    for (int32_t id = 0; vocabulary_.contains(id); ++id) {
      if (!is_text_type(vocabulary_.type(id))) continue;
      has_unused_ = has_unused_ || vocabulary_.type(id) == PieceType::kUnused;
      const std::string_view piece = vocabulary_.text(id);
      for (size_t at = piece.find(kSpace); at != std::string_view::npos;
           at = piece.find(kSpace, at + kSpace.size())) {
        const size_t behind = at + kSpace.size();
        if (at > 0 && !piece.substr(0, at).ends_with(kSpace)) space_behind_other = true;
        if (behind < piece.size() && !piece.substr(behind).starts_with(kSpace)) {
          other_behind_space = true;
        }
      }
    }
    // How an unused piece is taken apart may depend on the whole text.
    cuts_before_space_ = !space_behind_other && !has_unused_;
    cuts_behind_space_ = !other_behind_space && !has_unused_;
  }

  void encode(const MarkedText& text, std::vector<int32_t>& ids) const override {
    Run run(vocabulary_, text, has_unused_, ids);
    const std::string_view bytes(text.text());
    for (size_t begin = 0; begin < bytes.size();) {
      const size_t end = word_end(bytes, begin);
      run.encode(begin, end);
      begin = end;
    }
  }

 private:
  // One encoding.
  class Run {
   public:
    Run(const SentencePieceVocabulary& vocabulary, const MarkedText& text, bool has_unused,
        std::vector<int32_t>& ids)
        : vocabulary_(vocabulary), text_(text), has_unused_(has_unused), ids_(ids) {}

    // No piece lies across `begin` nor `end`.
    void encode(size_t begin, size_t end) {
      split_into_symbols(begin, end);
      queue_.clear();
      for (size_t right = 1; right < symbols_.size(); ++right) {
        offer(static_cast<int32_t>(right) - 1, static_cast<int32_t>(right), false);
      }
      std::make_heap(queue_.begin(), queue_.end(), Later());
      merge_symbols();
      for (int32_t i = 0; i != kNone; i = symbol(i).next) {
        emit(symbol(i).begin, symbol(i).size, symbol(i).frozen, 0);
      }
    }

   private:
    static constexpr int32_t kNone = -1;
    struct Symbol {
      uint32_t begin, size;  // size 0: merged into another
      int32_t previous, next;
      bool frozen;  // a user-defined piece, which is never merged
    };
    struct Pair {
      uint64_t order;
      int32_t left, right;
      uint32_t size;  // of both together when the pair was found
    };
    struct Later {
      bool operator()(const Pair& a, const Pair& b) const { return a.order > b.order; }
    };

    Symbol& symbol(int32_t index) { return symbols_[static_cast<size_t>(index)]; }
    std::string_view view(uint32_t begin, uint32_t size) const {
      return std::string_view(text_.text()).substr(begin, size);
    }

    void split_into_symbols(size_t begin, size_t end) {
      symbols_.clear();
      while (begin < end) {
        size_t behind = begin + vocabulary_.user_defined_at(text_, begin);
        const bool frozen = behind > begin;
        if (!frozen) text::next_code_point(text_.text(), behind);
        const auto index = static_cast<int32_t>(symbols_.size());
        symbols_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(behind - begin),
                            index - 1, behind < end ? index + 1 : kNone, frozen});
        begin = behind;
      }
    }

    // Remembers the pair if it can be merged.
    void offer(int32_t left_index, int32_t right_index, bool into_heap) {
      if (left_index == kNone || right_index == kNone) return;
      const Symbol& left = symbol(left_index);
      const Symbol& right = symbol(right_index);
      if (left.frozen || right.frozen) return;
      const uint32_t size = left.size + right.size;
      if (size > vocabulary_.longest_piece()) return;
      const std::string_view piece = view(left.begin, size);
      const auto id = vocabulary_.text_id(piece);
      if (!id || !vocabulary_.allows(*id, text_, left.begin, left.begin + size)) return;
      queue_.push_back({order_of(vocabulary_.score(*id), static_cast<uint32_t>(left_index)),
                        left_index, right_index, size});
      if (into_heap) std::push_heap(queue_.begin(), queue_.end(), Later());
      if (has_unused_ && vocabulary_.type(*id) == PieceType::kUnused) {
        unused_parts_[piece] = left.size;
      }
    }

    void merge_symbols() {
      while (!queue_.empty()) {
        std::pop_heap(queue_.begin(), queue_.end(), Later());
        const Pair pair = queue_.back();
        queue_.pop_back();
        Symbol& left = symbol(pair.left);
        Symbol& right = symbol(pair.right);
        // One of them has become part of another symbol meanwhile.
        if (left.size == 0 || right.size == 0 || left.size + right.size != pair.size) continue;
        left.size = pair.size;
        left.next = right.next;
        if (right.next != kNone) symbol(right.next).previous = pair.left;
        right.size = 0;
        offer(left.previous, pair.left, true);
        offer(pair.left, left.next, true);
      }
    }

    void emit(uint32_t begin, uint32_t size, bool frozen, int depth) {
      const std::string_view piece = view(begin, size);
      const auto id = vocabulary_.text_id(piece);
      if (!id || (!frozen && !vocabulary_.allows(*id, text_, begin, begin + size))) {
        vocabulary_.append_unknown(piece, after_unknown_, ids_);
        return;
      }
      if (vocabulary_.type(*id) == PieceType::kUnused && depth <= kMaxResegmentDepth) {
        const auto parts = unused_parts_.find(piece);
        if (parts == unused_parts_.end()) {
          vocabulary_.append_unknown(piece, after_unknown_, ids_);
          return;
        }
        const uint32_t left = parts->second;
        emit(begin, left, false, depth + 1);
        emit(begin + left, size - left, false, depth + 1);
        return;
      }
      ids_.push_back(*id);
      after_unknown_ = false;
    }

    const SentencePieceVocabulary& vocabulary_;
    const MarkedText& text_;
    const bool has_unused_;
    std::vector<int32_t>& ids_;
    std::vector<Symbol> symbols_;
    std::vector<Pair> queue_;  // a heap once it is filled
    // Unused pieces that were found: the size of the left one of the two they were merged from
    // last.
    std::unordered_map<std::string_view, uint32_t> unused_parts_;
    bool after_unknown_ = false;
  };

  // The end of a stretch that begins at `begin` and beyond which no piece reaches.
  size_t word_end(std::string_view text, size_t begin) const {
    if (!cuts_before_space_ && !cuts_behind_space_) return text.size();
    for (size_t at = text.find(kSpace, begin); at != std::string_view::npos;) {
      if (cuts_before_space_ && at > begin) return at;
      while (text.substr(at).starts_with(kSpace)) at += kSpace.size();
      if (cuts_behind_space_ && at < text.size()) return at;
      at = text.find(kSpace, at);
    }
    return text.size();
  }

  const SentencePieceVocabulary& vocabulary_;
  bool has_unused_ = false;
  // No piece has a space behind another character, or another character behind a space.
  bool cuts_before_space_, cuts_behind_space_;
};

}  // namespace

std::unique_ptr<SentencePieceModel> make_sentencepiece_bpe(
    const SentencePieceVocabulary& vocabulary) {
  return std::make_unique<Bpe>(vocabulary);
}

}  // namespace airllm::tokenizer

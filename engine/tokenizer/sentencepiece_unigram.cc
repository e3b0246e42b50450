// After EncodeOptimized() of the original's unigram_model.cc: sums are of 32 bits and are made in
// its order, since rounding decides ties.
#include <algorithm>
#include <limits>

#include "engine/text/unicode.h"
#include "engine/tokenizer/sentencepiece_model.h"

namespace airllm::tokenizer {
namespace {

using text::MarkedText;

constexpr float kUnknownPenalty = 10;
constexpr float kMaxSum = 100000;  // above, sums are taken relative to that of one position
constexpr uint32_t kUnreached = UINT32_MAX;

float user_defined_score(size_t length) {
  return static_cast<float>(0.1 * static_cast<double>(length - 1));
}

std::vector<PieceTree::Piece> found_pieces(const SentencePieceVocabulary& vocabulary) {
  std::vector<PieceTree::Piece> pieces;
  for (int32_t id = 0; vocabulary.contains(id); ++id) {
    const PieceType type = vocabulary.type(id);
    if (type == PieceType::kNormal || type == PieceType::kUserDefined) {
      pieces.push_back({vocabulary.text(id), id});
    }
  }
  return pieces;
}

class Unigram : public SentencePieceModel {
 public:
  explicit Unigram(const SentencePieceVocabulary& vocabulary)
      : vocabulary_(vocabulary), tree_(found_pieces(vocabulary)) {
    float lowest = std::numeric_limits<float>::max();
    for (int32_t id = 0; vocabulary_.contains(id); ++id) {
      if (vocabulary_.type(id) != PieceType::kNormal) continue;
      lowest = std::min(lowest, vocabulary_.score(id));
    }
    unknown_score_ = lowest - kUnknownPenalty;
  }

  void encode(const MarkedText& text, std::vector<int32_t>& ids) const override {
    std::vector<Node> nodes(text.size() + 1);
    search(text, nodes);
    // The best way, from its end; then from its begin.
    std::vector<uint32_t> ends;
    for (auto end = static_cast<uint32_t>(text.size()); end > 0; end = nodes[end].begin) {
      ends.push_back(end);
    }
    bool after_unknown = false;
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const Node& node = nodes[*end];
      if (node.id != vocabulary_.unknown()) {
        ids.push_back(node.id);
        after_unknown = false;
        continue;
      }
      vocabulary_.append_unknown(
          std::string_view(text.text()).substr(node.begin, *end - node.begin), after_unknown, ids);
    }
  }

 private:
  // The best way that ends at one byte of the text: its last piece.
  struct Node {
    int32_t id = 0;
    float score = 0;
    uint32_t begin = kUnreached;
  };

  void search(const MarkedText& text, std::vector<Node>& nodes) const {
    const std::string_view bytes(text.text());
    size_t frontier = 0;  // the last node that is reached
    for (size_t begin = 0; begin < bytes.size();) {
      if (nodes[begin].score < -kMaxSum || nodes[begin].score > kMaxSum) {
        rebase(nodes, begin, frontier);
      }
      const auto offer = [&, begin](size_t length, int32_t id, float score) {
        frontier = std::max(frontier, begin + length);
        Node& target = nodes[begin + length];
        const float sum = score + nodes[begin].score;
        if (target.begin != kUnreached && !(sum > target.score)) return;
        target = {id, sum, static_cast<uint32_t>(begin)};
      };
      size_t behind = begin;
      text::next_code_point(bytes, behind);
      const size_t character = behind - begin;
      bool has_single = false;
      tree_.for_each_prefix(bytes.substr(begin), [&](size_t length, int32_t id) {
        if (!vocabulary_.allows(id, text, begin, begin + length)) return;
        offer(length, id,
              vocabulary_.type(id) == PieceType::kUserDefined ? user_defined_score(length)
                                                              : vocabulary_.score(id));
        has_single = has_single || length == character;
      });
      if (!has_single) offer(character, vocabulary_.unknown(), unknown_score_);
      begin = behind;
    }
  }

  // Makes the sum at `begin` zero.
  static void rebase(std::vector<Node>& nodes, size_t begin, size_t frontier) {
    const float offset = nodes[begin].score;
    for (size_t i = begin; i <= frontier; ++i) {
      if (i == begin || nodes[i].begin != kUnreached) nodes[i].score -= offset;
    }
    nodes[begin].score = 0;
  }

  const SentencePieceVocabulary& vocabulary_;
  PieceTree tree_;
  float unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<SentencePieceModel> make_sentencepiece_unigram(
    const SentencePieceVocabulary& vocabulary) {
  return std::make_unique<Unigram>(vocabulary);
}

}  // namespace airllm::tokenizer

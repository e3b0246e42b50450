#include "engine/tokenizer/unigram.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>

#include "engine/tokenizer/byte_token.h"
#include "engine/tokenizer/piece_tree.h"
#include "engine/tokenizer/tokenizer_file.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxPieceBytes = 1024;  // bounds the steps per character of a text
constexpr double kUnknownPenalty = 10;
constexpr uint32_t kUnreached = UINT32_MAX;

std::vector<PieceTree::Piece> pieces_of(const Vocabulary& vocabulary) {
  std::vector<PieceTree::Piece> pieces;
  pieces.reserve(vocabulary.id_limit());
  for (int32_t id = 0; id < static_cast<int32_t>(vocabulary.id_limit()); ++id) {
    pieces.push_back({*vocabulary.text(id), id});
  }
  return pieces;
}

class Unigram : public Model {
 public:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, int32_t unknown, bool byte_fallback)
      : vocabulary_(std::move(vocabulary)),
        scores_(std::move(scores)),
        tree_(pieces_of(vocabulary_)),
        unknown_(unknown),
        byte_fallback_(byte_fallback) {
    double lowest = std::numeric_limits<double>::infinity();
    for (const double score : scores_) lowest = std::min(lowest, score);
    unknown_score_ = lowest - kUnknownPenalty;
    for (unsigned byte = 0; byte < byte_ids_.size(); ++byte) {
      byte_ids_[byte] = vocabulary_.id(byte_token(byte)).value_or(-1);
    }
  }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::unique_ptr<Encoder> encoder() const override { return std::make_unique<Run>(*this); }

 private:
  // The best way that ends at one byte of the word: its last piece.
  struct Node {
    double score = 0;
    int32_t id = 0;
    uint32_t begin = kUnreached;
  };
  struct Piece {
    uint32_t begin, end;
    int32_t id;
  };

  class Run : public Encoder {
   public:
    explicit Run(const Unigram& model) : model_(model) {}
    Status encode(const Words& words, std::vector<int32_t>& ids) override {
      for (const Words::Word& word : words.words) {
        const std::string_view text = words.view(word);
        if (!model_.search(text, nodes_)) return missing_unknown_token();
        AIRLLM_TRY_VOID(emit(text, ids));
      }
      return {};
    }

   private:
    // Pieces from the end to the start; neighbouring unknown ones become one.
    void trace_back(std::string_view text) {
      pieces_.clear();
      for (auto end = static_cast<uint32_t>(text.size()); end > 0;) {
        const Node& node = nodes_[end];
        const bool unknown = node.id == model_.unknown_;
        if (unknown && !pieces_.empty() && pieces_.back().id == model_.unknown_) {
          pieces_.back().begin = node.begin;
        } else {
          pieces_.push_back({node.begin, end, node.id});
        }
        end = node.begin;
      }
    }
    Status emit(std::string_view text, std::vector<int32_t>& ids) {
      trace_back(text);
      for (auto piece = pieces_.rbegin(); piece != pieces_.rend(); ++piece) {
        if (piece->id != model_.unknown_) {
          ids.push_back(piece->id);
        } else {
          model_.append_unknown(text.substr(piece->begin, piece->end - piece->begin), ids);
        }
      }
      return {};
    }

    const Unigram& model_;
    std::vector<Node> nodes_;
    std::vector<Piece> pieces_;
  };

  // False when a character has no piece and there is no unknown token.
  bool search(std::string_view text, std::vector<Node>& nodes) const {
    nodes.assign(text.size() + 1, Node());
    const auto offer = [&](size_t begin, size_t length, int32_t id, double score) {
      Node& target = nodes[begin + length];
      const double sum = score + nodes[begin].score;
      if (target.begin != kUnreached && !(sum > target.score)) return;
      target = {sum, id, static_cast<uint32_t>(begin)};
    };
    for (size_t begin = 0; begin < text.size();) {
      size_t character = 1;
      while (begin + character < text.size() &&
             (static_cast<unsigned char>(text[begin + character]) & 0xC0U) == 0x80U) {
        ++character;
      }
      bool has_single = false;
      tree_.for_each_prefix(text.substr(begin), [&](size_t length, int32_t id) {
        offer(begin, length, id, scores_[static_cast<size_t>(id)]);
        has_single = has_single || length == character;
      });
      if (!has_single) {
        if (unknown_ < 0) return false;
        offer(begin, character, unknown_, unknown_score_);
      }
      begin += character;
    }
    return true;
  }

  // As in the reference, a run of unknown characters that spells a piece is that piece.
  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
    if (const auto id = vocabulary_.id(text)) {
      ids.push_back(*id);
      return;
    }
    const auto is_absent = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)] < 0; };
    if (!byte_fallback_ || std::any_of(text.begin(), text.end(), is_absent)) {
      ids.push_back(unknown_);
      return;
    }
    for (const char c : text) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  }

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  PieceTree tree_;
  std::array<int32_t, 256> byte_ids_{};
  double unknown_score_ = 0;
  int32_t unknown_;  // -1: none
  bool byte_fallback_;
};

}  // namespace

Result<std::unique_ptr<Model>> build_unigram(const Fields& fields, TokenizerFile& file) {
  if (!file.has_scores) return fields.wrong("vocab", "a list of pieces with scores");
  for (size_t id = 0; id < file.vocabulary.id_limit(); ++id) {
    if (file.vocabulary.text(static_cast<int32_t>(id))->size() > kMaxPieceBytes) {
      return fields.wrong("vocab", "a list of pieces of at most 1024 bytes");
    }
  }
  int64_t unknown = -1;
  if (fields.find("unk_id") != nullptr) {
    AIRLLM_TRY(unknown, fields.integer("unk_id", 0, static_cast<int64_t>(file.scores.size()) - 1));
  }
  AIRLLM_TRY(const bool byte_fallback, fields.boolean_or("byte_fallback", false));
  return std::unique_ptr<Model>(new Unigram(std::move(file.vocabulary), std::move(file.scores),
                                            static_cast<int32_t>(unknown), byte_fallback));
}

}  // namespace airllm::tokenizer

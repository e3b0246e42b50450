// The pieces of a tokenizer.model, and which of them a text may become.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/text/marked_text.h"
#include "engine/tokenizer/piece_tree.h"
#include "engine/tokenizer/sentencepiece_file.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {

// Filled once, then safe to share between threads.
class SentencePieceVocabulary {
 public:
  // A piece that occurs twice is a kData error; but a model of kind kUnigram may, as the
  // original's, have one for texts with the text of one that is not. `what` names the file.
  static Result<SentencePieceVocabulary> build(const SentencePieceFile& file,
                                               std::string_view what);

  size_t size() const { return types_.size(); }
  bool contains(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < types_.size(); }
  // Of an id that is contained.
  PieceType type(int32_t id) const { return types_[static_cast<size_t>(id)]; }
  float score(int32_t id) const { return scores_[static_cast<size_t>(id)]; }
  std::string_view text(int32_t id) const;

  // Any piece of that text; control, unknown and byte pieces before others.
  std::optional<int32_t> id(std::string_view text) const;
  // The normal, user-defined or unused piece of that text.
  std::optional<int32_t> text_id(std::string_view text) const { return text_pieces_.id(text); }

  int32_t unknown() const { return unknown_; }  // -1: none, and there are all bytes
  bool byte_fallback() const { return byte_fallback_; }
  int32_t byte_id(unsigned char byte) const { return byte_ids_[byte]; }
  size_t longest_piece() const { return longest_piece_; }  // of texts, in bytes

  // Says that the piece stands for control: no part of a text that is the user's becomes it.
  void guard(int32_t id) { guarded_[static_cast<size_t>(id)] = true; }
  // Whether bytes [begin, end) of the text may become the piece.
  bool allows(int32_t id, const text::MarkedText& text, size_t begin, size_t end) const {
    return !guarded_[static_cast<size_t>(id)] || text.origin_of(begin, end) != text::kUserOrigin;
  }

  // The longest user-defined piece that begins at `at` (of the first 64, as the original) and is
  // allowed there: its length; 0: none.
  size_t user_defined_at(const text::MarkedText& text, size_t at) const;

  // Appends what becomes of a text without a piece: its bytes when there are pieces for them, else
  // one unknown piece for all of them in a row. `after_unknown` is the state of that row.
  void append_unknown(std::string_view text, bool& after_unknown, std::vector<int32_t>& ids) const;

 private:
  explicit SentencePieceVocabulary(const SentencePieceFile& file);

  Vocabulary text_pieces_;      // normal, user-defined and unused ones
  Vocabulary reserved_pieces_;  // control, unknown and byte ones
  std::vector<PieceType> types_;
  std::vector<float> scores_;
  std::vector<bool> guarded_;
  PieceTree user_defined_;
  std::array<bool, 256> begins_user_defined_{};  // by first byte
  std::array<int32_t, 256> byte_ids_{};
  int32_t unknown_ = -1;
  size_t longest_piece_ = 0;
  bool byte_fallback_;
};

}  // namespace airllm::tokenizer

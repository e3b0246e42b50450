#include "engine/tokenizer/sentencepiece_vocabulary.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "engine/tokenizer/byte_token.h"

namespace airllm::tokenizer {
namespace {

constexpr int kMaxMatches = 64;  // the original's kResultSize

std::vector<PieceTree::Piece> user_defined_pieces(const SentencePieceFile& file) {
  std::vector<PieceTree::Piece> pieces;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    if (file.pieces[id].type != PieceType::kUserDefined) continue;
    pieces.push_back({file.pieces[id].text, static_cast<int32_t>(id)});
  }
  return pieces;
}

}  // namespace

SentencePieceVocabulary::SentencePieceVocabulary(const SentencePieceFile& file)
    : guarded_(file.pieces.size()), user_defined_({}), byte_fallback_(file.byte_fallback) {
  byte_ids_.fill(-1);
}

Result<SentencePieceVocabulary> SentencePieceVocabulary::build(const SentencePieceFile& file,
                                                               std::string_view what) {
  SentencePieceVocabulary out(file);
  const bool one_map = file.kind == SentencePieceFile::Kind::kBpe;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const SentencePieceFile::Piece& piece = file.pieces[i];
    const auto id = static_cast<int32_t>(i);
    out.types_.push_back(piece.type);
    out.scores_.push_back(piece.score);
    if (piece.text == kNullPiece) continue;
    const bool is_text = is_text_type(piece.type);
    const bool taken =
        one_map && (is_text ? out.reserved_pieces_ : out.text_pieces_).id(piece.text);
    Status added = taken ? Status(Unexpected(ErrorCode::kData, "")) : Status();
    if (!taken) added = (is_text ? out.text_pieces_ : out.reserved_pieces_).add(piece.text, id);
    if (!added) {
      return Unexpected(ErrorCode::kData,
                        std::string(what) + ": piece " + std::to_string(i) + " ('" +
                            escape_for_display(piece.text.substr(0, 80), true) +
                            "') has the text of a piece before it",
                        "get the file again; it is damaged");
    }
    if (is_text) out.longest_piece_ = std::max(out.longest_piece_, piece.text.size());
    if (piece.type == PieceType::kUnknown) out.unknown_ = id;
    if (piece.type == PieceType::kByte) out.byte_ids_[*byte_of_token(piece.text)] = id;
    if (piece.type == PieceType::kUserDefined) {
      out.begins_user_defined_[static_cast<unsigned char>(piece.text[0])] = true;
    }
  }
  // Only here, where no two are known to be equal.
  out.user_defined_ = PieceTree(user_defined_pieces(file));
  out.text_pieces_.shrink_to_fit();
  return out;
}

std::string_view SentencePieceVocabulary::text(int32_t id) const {
  if (const auto text = text_pieces_.text(id)) return *text;
  return reserved_pieces_.text(id).value_or(kNullPiece);
}

std::optional<int32_t> SentencePieceVocabulary::id(std::string_view text) const {
  if (const auto reserved = reserved_pieces_.id(text)) return reserved;
  return text_pieces_.id(text);
}

size_t SentencePieceVocabulary::user_defined_at(const text::MarkedText& text, size_t at) const {
  const std::string_view bytes(text.text());
  if (!begins_user_defined_[static_cast<unsigned char>(bytes[at])]) return 0;
  size_t longest = 0;
  int count = 0;
  user_defined_.for_each_prefix(bytes.substr(at), [&](size_t length, int32_t id) {
    if (count++ < kMaxMatches && allows(id, text, at, at + length)) longest = length;
  });
  return longest;
}

void SentencePieceVocabulary::append_unknown(std::string_view text, bool& after_unknown,
                                             std::vector<int32_t>& ids) const {
  if (byte_fallback_) {
    for (const char c : text) ids.push_back(byte_id(static_cast<unsigned char>(c)));
  } else if (!after_unknown) {
    ids.push_back(unknown_);
  }
  after_unknown = true;
}

}  // namespace airllm::tokenizer

// tokenizer.model of SentencePiece: the message ModelProto of its sentencepiece_model.proto, read
// from untrusted bytes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace airllm::tokenizer {

enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // never found in a text
  kUserDefined = 4,  // found in a text before anything else
  kUnused = 5,       // takes part in merges, but is never an answer
  kByte = 6,         // <0x00> to <0xFF>
};

// Whether a text is searched for pieces of that type.
constexpr bool is_text_type(PieceType type) {
  return type == PieceType::kNormal || type == PieceType::kUserDefined ||
         type == PieceType::kUnused;
}

// All texts borrow from the file's bytes, or are constants.
struct SentencePieceFile {
  struct Piece {
    std::string_view text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  enum class Kind { kUnigram = 1, kBpe = 2 };

  std::vector<Piece> pieces;  // by id
  Kind kind = Kind::kUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  // What decoding makes of the unknown piece.
  std::string_view unknown_surface = " \u2047 ";
  std::string_view bos_piece = "<s>", eos_piece = "</s>";

  // The normalizer.
  std::string_view charsmap;  // empty: none (engine/tokenizer/charsmap.h)
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// A piece that the original treats as if it were not there: a zero byte.
inline constexpr std::string_view kNullPiece("\0", 1);

// `what` names the file in messages. Besides broken messages, what the original refuses is a kData
// error: a piece that is empty, over 8,000 bytes long, not UTF-8 or there twice, scores that are
// not finite, no or several unknown pieces, a byte missing of those of byte_fallback; also other
// kinds of models (WORD, CHAR), by name.
Result<SentencePieceFile> read_sentencepiece_file(std::string_view bytes, std::string_view what);

}  // namespace airllm::tokenizer

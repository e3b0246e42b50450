#include "engine/tokenizer/sentencepiece_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>

#include "base/utf8.h"
#include "engine/tokenizer/byte_token.h"
#include "engine/tokenizer/protobuf_reader.h"
#include "engine/tokenizer/vocabulary.h"

namespace airllm::tokenizer {
namespace {

constexpr size_t kMaxPieceBytes = 7999;  // as the original
// All texts together: a tree of them takes about 20 bytes for each of theirs. The largest published
// vocabularies have 3 MB.
constexpr size_t kMaxTextsBytes = size_t{16} << 20;
constexpr const char* kRemedy = "get the file again, or convert the tokenizer to tokenizer.json";

// Field numbers of sentencepiece_model.proto.
namespace model_field {
constexpr uint32_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3;
}
namespace piece_field {
constexpr uint32_t kPiece = 1, kScore = 2, kType = 3;
}
namespace trainer_field {
constexpr uint32_t kModelType = 3, kTreatWhitespaceAsSuffix = 24, kByteFallback = 35,
                   kUnkSurface = 44, kBosPiece = 46, kEosPiece = 47;
}
namespace normalizer_field {
constexpr uint32_t kPrecompiledCharsmap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4,
                   kEscapeWhitespaces = 5;
}

class FileReader {
 public:
  FileReader(std::string_view bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  Result<SentencePieceFile> read() {
    ProtobufReader reader(bytes_, 0, what_);
    while (true) {
      AIRLLM_TRY(const std::optional<ProtobufField> field, reader.next());
      if (!field) break;
      AIRLLM_TRY_VOID(read_member(reader, *field));
    }
    hide_null_pieces();
    AIRLLM_TRY_VOID(check_pieces());
    return std::move(file_);
  }

 private:
  Unexpected bad(const std::string& why) const {
    return Unexpected(ErrorCode::kData, what_ + ": " + why, kRemedy);
  }
  std::string place(size_t id) const {
    return "piece " + std::to_string(id) + " ('" +
           escape_for_display(file_.pieces[id].text.substr(0, 80), true) + "')";
  }

  Status read_member(const ProtobufReader& reader, const ProtobufField& field) {
    if (field.number == model_field::kPieces) {
      AIRLLM_TRY(const std::string_view bytes, reader.bytes_of(field, "a piece"));
      if (file_.pieces.size() > static_cast<size_t>(kMaxTokenId)) {
        return bad("it has more than " + std::to_string(kMaxTokenId + 1) + " pieces");
      }
      return read_piece(ProtobufReader(bytes, field.bytes_offset, what_));
    }
    if (field.number == model_field::kTrainerSpec) {
      AIRLLM_TRY(const std::string_view bytes, reader.bytes_of(field, "trainer_spec"));
      return read_trainer_spec(ProtobufReader(bytes, field.bytes_offset, what_));
    }
    if (field.number == model_field::kNormalizerSpec) {
      AIRLLM_TRY(const std::string_view bytes, reader.bytes_of(field, "normalizer_spec"));
      return read_normalizer_spec(ProtobufReader(bytes, field.bytes_offset, what_));
    }
    return {};
  }

  Status read_piece(ProtobufReader reader) {
    SentencePieceFile::Piece piece;
    while (true) {
      AIRLLM_TRY(const std::optional<ProtobufField> field, reader.next());
      if (!field) break;
      if (field->number == piece_field::kPiece) {
        AIRLLM_TRY(piece.text, reader.text_of(*field, "a piece's text"));
      } else if (field->number == piece_field::kScore) {
        AIRLLM_TRY(piece.score, reader.float_of(*field, "a piece's score"));
      } else if (field->number == piece_field::kType) {
        AIRLLM_TRY(const uint64_t type, reader.number_of(*field, "a piece's type"));
        if (type < 1 || type > 6) {
          return reader.wrong(
              *field, "a piece has the type " + std::to_string(type) + ", which is not known");
        }
        piece.type = static_cast<PieceType>(type);
      }
    }
    texts_bytes_ += piece.text.size();
    if (texts_bytes_ > kMaxTextsBytes) return bad("its pieces have more than 16 MiB of text");
    file_.pieces.push_back(piece);
    return {};
  }

  Status read_trainer_spec(ProtobufReader reader) {
    while (true) {
      AIRLLM_TRY(const std::optional<ProtobufField> field, reader.next());
      if (!field) return {};
      switch (field->number) {
        case trainer_field::kModelType: {
          AIRLLM_TRY(const uint64_t type, reader.number_of(*field, "model_type"));
          AIRLLM_TRY_VOID(set_kind(type));
          break;
        }
        case trainer_field::kTreatWhitespaceAsSuffix: {
          AIRLLM_TRY(file_.treat_whitespace_as_suffix,
                     reader.boolean_of(*field, "treat_whitespace_as_suffix"));
          break;
        }
        case trainer_field::kByteFallback: {
          AIRLLM_TRY(file_.byte_fallback, reader.boolean_of(*field, "byte_fallback"));
          break;
        }
        case trainer_field::kUnkSurface: {
          AIRLLM_TRY(file_.unknown_surface, reader.text_of(*field, "unk_surface"));
          break;
        }
        case trainer_field::kBosPiece: {
          AIRLLM_TRY(const std::string_view text, reader.text_of(*field, "bos_piece"));
          if (!text.empty()) file_.bos_piece = text;
          break;
        }
        case trainer_field::kEosPiece: {
          AIRLLM_TRY(const std::string_view text, reader.text_of(*field, "eos_piece"));
          if (!text.empty()) file_.eos_piece = text;
          break;
        }
        default: break;
      }
    }
  }

  Status set_kind(uint64_t type) {
    if (type == 1) {
      file_.kind = SentencePieceFile::Kind::kUnigram;
    } else if (type == 2) {
      file_.kind = SentencePieceFile::Kind::kBpe;
    } else {
      const std::string name = type == 3   ? "WORD"
                               : type == 4 ? "CHAR"
                                           : "the number " + std::to_string(type);
      return bad("its model_type is " + name + "; only UNIGRAM and BPE are supported");
    }
    return {};
  }

  Status read_normalizer_spec(ProtobufReader reader) {
    while (true) {
      AIRLLM_TRY(const std::optional<ProtobufField> field, reader.next());
      if (!field) return {};
      switch (field->number) {
        case normalizer_field::kPrecompiledCharsmap: {
          AIRLLM_TRY(file_.charsmap, reader.bytes_of(*field, "precompiled_charsmap"));
          break;
        }
        case normalizer_field::kAddDummyPrefix: {
          AIRLLM_TRY(file_.add_dummy_prefix, reader.boolean_of(*field, "add_dummy_prefix"));
          break;
        }
        case normalizer_field::kRemoveExtraWhitespaces: {
          AIRLLM_TRY(file_.remove_extra_whitespaces,
                     reader.boolean_of(*field, "remove_extra_whitespaces"));
          break;
        }
        case normalizer_field::kEscapeWhitespaces: {
          AIRLLM_TRY(file_.escape_whitespaces, reader.boolean_of(*field, "escape_whitespaces"));
          break;
        }
        default: break;
      }
    }
  }

  // Some converters write a piece of a zero byte beside <0x00>; the original lets it be.
  void hide_null_pieces() {
    if (!file_.byte_fallback) return;
    for (SentencePieceFile::Piece& piece : file_.pieces) {
      if (piece.text == kNullPiece) piece.type = PieceType::kUnused;
    }
  }

  Status check_pieces() const {
    std::optional<size_t> unknown;
    bool has_text = false;
    std::array<bool, 256> has_byte{};
    for (size_t id = 0; id < file_.pieces.size(); ++id) {
      const SentencePieceFile::Piece& piece = file_.pieces[id];
      if (!std::isfinite(piece.score)) return bad(place(id) + " has a score that is not finite");
      if (piece.text == kNullPiece && piece.type == PieceType::kUnused) continue;
      AIRLLM_TRY_VOID(check_text(id));
      has_text = has_text || is_text_type(piece.type);
      if (piece.type == PieceType::kUnknown) {
        if (unknown) return bad(place(id) + " and " + place(*unknown) + " are both unknown pieces");
        unknown = id;
      }
      if (piece.type == PieceType::kByte) {
        AIRLLM_TRY(const unsigned byte, byte_of(id));
        has_byte[byte] = true;
      }
    }
    if (!has_text) return bad("it has no pieces that a text can be made of");
    if (!unknown && !file_.byte_fallback) return bad("it has no unknown piece");
    const auto missing = std::find(has_byte.begin(), has_byte.end(), false);
    if (file_.byte_fallback && missing != has_byte.end()) {
      return bad("byte_fallback is set, but there is no piece for the byte " +
                 std::to_string(missing - has_byte.begin()));
    }
    return {};
  }

  Status check_text(size_t id) const {
    const std::string_view text = file_.pieces[id].text;
    if (text.empty()) return bad("piece " + std::to_string(id) + " is empty");
    if (text.size() > kMaxPieceBytes) return bad(place(id) + " is longer than 7999 bytes");
    if (text.find('\0') != std::string_view::npos) return bad(place(id) + " has a zero byte");
    return {};
  }

  Result<unsigned> byte_of(size_t id) const {
    if (!file_.byte_fallback) return bad(place(id) + " is a byte, but byte_fallback is not set");
    if (const auto byte = byte_of_token(file_.pieces[id].text)) return *byte;
    return bad(place(id) + " is a byte, but is not written as <0x00> to <0xFF>");
  }

  std::string_view bytes_;
  std::string what_;
  SentencePieceFile file_;
  size_t texts_bytes_ = 0;
};

}  // namespace

Result<SentencePieceFile> read_sentencepiece_file(std::string_view bytes, std::string_view what) {
  return FileReader(bytes, what).read();
}

}  // namespace airllm::tokenizer

#include "engine/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <utility>

#include "engine/text/unicode.h"
#include "engine/tokenizer/join_parts.h"
#include "engine/tokenizer/sentencepiece_decoder.h"
#include "engine/tokenizer/sentencepiece_model.h"
#include "engine/tokenizer/sentencepiece_normalizer.h"
#include "engine/tokenizer/sentencepiece_settings.h"

namespace airllm::tokenizer {
namespace {

// All that the files hold. The model borrows the vocabulary.
struct Components {
  std::unique_ptr<const SentencePieceVocabulary> vocabulary;
  std::unique_ptr<const SentencePieceModel> model;
  SentencePieceNormalizer normalizer;
  SentencePieceDecoding decoding;
  AddedTokens added;
  std::vector<int32_t> before, behind;
  bool prefix_every_stretch;
};

class SentencePieceTokenizer : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(Components parts) : parts_(std::move(parts)) {}

  Result<std::vector<int32_t>> encode(std::span<const TextPart> parts,
                                      const EncodeOptions& options) const override {
    AIRLLM_TRY(const text::MarkedText text, join_parts(parts));
    std::vector<int32_t> ids;
    if (options.add_special) ids = parts_.before;
    for (const AddedTokens::Section& section : parts_.added.cut_raw(text)) {
      if (section.id >= 0) {
        ids.push_back(section.id);
        continue;
      }
      const bool prefix = parts_.prefix_every_stretch || section.begin == 0;
      AIRLLM_TRY(const text::MarkedText normalized,
                 parts_.normalizer.apply(text.substr(section.begin, section.end), prefix,
                                         *parts_.vocabulary));
      parts_.model->encode(normalized, ids);
    }
    if (options.add_special) ids.insert(ids.end(), parts_.behind.begin(), parts_.behind.end());
    return ids;
  }

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    const std::unique_ptr<Stream> run = stream(skip_special);
    std::string text;
    for (const int32_t id : ids) text += run->push(id);
    return text + run->finish();
  }

  size_t vocabulary_size() const override {
    return std::max(parts_.vocabulary->size(), static_cast<size_t>(parts_.added.largest_id() + 1));
  }
  std::optional<int32_t> token_id(std::string_view token) const override {
    if (const AddedToken* added = parts_.added.find(token)) return added->id;
    return parts_.vocabulary->id(token);
  }
  std::optional<std::string> token_text(int32_t id) const override {
    if (const AddedToken* added = parts_.added.find(id)) return added->content;
    if (!parts_.vocabulary->contains(id)) return std::nullopt;
    return std::string(parts_.vocabulary->text(id));
  }
  std::unique_ptr<Stream> stream(bool skip_special) const override;

  const Components& parts() const { return parts_; }

 private:
  Components parts_;
};

class SentencePieceStream : public Tokenizer::Stream {
 public:
  SentencePieceStream(const Components& parts, bool skip_special)
      : parts_(parts), decoder_(*parts.vocabulary, parts.decoding), skip_special_(skip_special) {}

  std::string push(int32_t id) override {
    const bool is_piece = parts_.vocabulary->contains(id);
    // Something stood in the text there, though the piece is special.
    if (is_piece && parts_.vocabulary->type(id) == PieceType::kUnknown) return decoder_.push(id);
    const AddedToken* added = parts_.added.find(id);
    if (added != nullptr && added->special) {
      if (!skip_special_) return decoder_.push_text(added->content);
      // To the original, bytes on both sides of a control piece are not one character's.
      const bool is_control = is_piece && parts_.vocabulary->type(id) == PieceType::kControl;
      return is_control ? decoder_.push(id) : std::string();
    }
    if (is_piece && (added == nullptr || added->content == parts_.vocabulary->text(id))) {
      return decoder_.push(id);
    }
    return added != nullptr ? decoder_.push_text(added->content) : std::string();
  }
  std::string finish() override { return decoder_.finish(); }

 private:
  const Components& parts_;
  SentencePieceDecoder decoder_;
  bool skip_special_;
};

std::unique_ptr<Tokenizer::Stream> SentencePieceTokenizer::stream(bool skip_special) const {
  return std::make_unique<SentencePieceStream>(parts_, skip_special);
}

// Whether a user-defined piece is nothing that a model could take for control: one character, or
// white space alone.
bool is_plain(std::string_view piece) {
  size_t count = 0;
  bool all_space = true;
  for (size_t at = 0; at < piece.size(); ++count) {
    const char32_t c = text::next_code_point(piece, at);
    all_space = all_space && (c == 0x2581 || text::is_space(c));
  }
  return count == 1 || all_space;
}

// Marks what a user's text must not become.
void guard_control(const std::vector<AddedToken>& added, SentencePieceVocabulary& vocabulary) {
  for (int32_t id = 0; vocabulary.contains(id); ++id) {
    if (vocabulary.type(id) == PieceType::kUserDefined && !is_plain(vocabulary.text(id))) {
      vocabulary.guard(id);
    }
  }
  for (const AddedToken& token : added) {
    const bool is_piece = vocabulary.contains(token.id);
    if (is_piece && (token.special || vocabulary.text(token.id) != token.content)) {
      vocabulary.guard(token.id);
    }
  }
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_sentencepiece(const TextFiles& files,
                                                      std::string_view where) {
  const std::string what = std::string(where) + "/tokenizer.model";
  AIRLLM_TRY(const SentencePieceFile file, read_sentencepiece_file(*files.tokenizer_model, what));
  AIRLLM_TRY(SentencePieceVocabulary pieces, SentencePieceVocabulary::build(file, what));
  AIRLLM_TRY(SentencePieceNormalizer normalizer, SentencePieceNormalizer::build(file, what));
  AIRLLM_TRY(SentencePieceSettings settings,
             read_sentencepiece_settings(files, file, pieces, where));
  guard_control(settings.added, pieces);
  AIRLLM_TRY(AddedTokens added, AddedTokens::from_tokens(std::move(settings.added), nullptr,
                                                         std::string(where) + ": added tokens"));

  auto vocabulary = std::make_unique<const SentencePieceVocabulary>(std::move(pieces));
  std::unique_ptr<const SentencePieceModel> model = file.kind == SentencePieceFile::Kind::kBpe
                                                        ? make_sentencepiece_bpe(*vocabulary)
                                                        : make_sentencepiece_unigram(*vocabulary);
  const SentencePieceDecoding decoding{std::string(file.unknown_surface),
                                       file.add_dummy_prefix || file.remove_extra_whitespaces,
                                       file.remove_extra_whitespaces};
  Components parts{std::move(vocabulary),      std::move(model),
                   std::move(normalizer),      decoding,
                   std::move(added),           std::move(settings.before),
                   std::move(settings.behind), settings.prefix_every_stretch};
  return std::unique_ptr<Tokenizer>(new SentencePieceTokenizer(std::move(parts)));
}

}  // namespace airllm::tokenizer
